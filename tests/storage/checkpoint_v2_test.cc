// Checkpoints of format version 2, as older programs wrote them, and their conversion.
#include "storage/checkpoint_v2.h"

#include <gmock/gmock.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "storage/hdf5_handle.h"
#include "storage/hdf5_lock.h"
#include "tests/storage/checkpoint_fixture.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using testing_support::error_of;
using testing_support::open_error;
using testing_support::rewrite_manifest;

class CheckpointV2Test : public CheckpointTest {
 protected:
  /// Writes a rank's file as version 2 had it.
  void write_v2(const fs::path& path, const std::vector<Extent>& extents,
                const Buffers& all) const {
    const Hdf5Lock lock;
    const Hdf5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                          H5Fclose, "create");
    const auto attribute = [&](const char* name, const std::vector<hsize_t>& shape,
                               const void* values) {
      const Hdf5Handle space(
          H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose, "a");
      const Hdf5Handle a(H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT),
                         H5Aclose, "b");
      if (!extents.empty() || shape.size() == 1) H5Awrite(a, H5T_NATIVE_INT64, values);
    };
    const int64_t flat_size = table_.flat_size();
    attribute("extents", {extents.size(), 2}, extents.data());
    attribute("flat_size", {1}, &flat_size);
    for (const auto& [name, values] :
         {std::pair{"weights", &all.weights}, {"adam_m", &all.m}, {"adam_v", &all.v}}) {
      std::vector<float> held;
      for (const Extent& e : extents)
        held.insert(held.end(), values->begin() + e.begin, values->begin() + e.end);
      const hsize_t count = held.size();
      const Hdf5Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose, "c");
      const Hdf5Handle dataset(
          H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
          H5Dclose, "d");
      H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, held.data());
    }
  }

  /// A checkpoint of version 2 whose ranks hold these extents; the rest is as save()
  /// has it.
  fs::path save_v2(int64_t step, const Buffers& b,
                   const std::vector<std::vector<Extent>>& ranks) const {
    const fs::path path = save(step, b);
    json manifest = json::parse(read_file(path / kManifestFile));
    manifest.erase("modules");
    manifest["format_version"] = 2;
    manifest["flat_size"] = table_.flat_size();
    manifest["tensors"] = json::array();
    const Span<const float> flat = b.weights;
    for (const models::Parameter& p : table_.parameters())
      manifest["tensors"].push_back({{"name", p.name},
                                     {"shape", p.shape},
                                     {"offset", table_.values(flat, p).data() - flat.data()}});
    manifest["files"] = json::array();
    fs::remove(path / rank_file_name(0, 1));
    for (size_t r = 0; r < ranks.size(); ++r) {
      const std::string name = rank_file_name(static_cast<int64_t>(r), std::ssize(ranks));
      write_v2(path / name, ranks[r], b);
      const CheckpointFileEntry entry = describe_file(path, name);
      json extents = json::array();
      for (const Extent& e : ranks[r]) extents.push_back({e.begin, e.end});
      manifest["files"].push_back(
          {{"name", name}, {"bytes", entry.bytes}, {"sha256", entry.sha256}, {"extents", extents}});
    }
    rewrite_manifest(path, manifest.dump());
    return path;
  }

  /// Changes the first rank's file and then has the manifest agree with it.
  static void change_file(const fs::path& path, const std::function<void(hid_t)>& change) {
    json manifest = json::parse(read_file(path / kManifestFile));
    const std::string name = manifest["files"][0]["name"];
    {
      const Hdf5Lock lock;
      const Hdf5Handle file(H5Fopen((path / name).c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose,
                            "open");
      change(file);
    }
    const CheckpointFileEntry entry = describe_file(path, name);
    manifest["files"][0]["bytes"] = entry.bytes;
    manifest["files"][0]["sha256"] = entry.sha256;
    rewrite_manifest(path, manifest.dump());
  }

  std::vector<std::vector<Extent>> cuts() const {
    const int64_t n = table_.flat_size();
    return {{{0, 5}, {1000, 1001}, {2000, n - 20}}, {}, {{5, 1000}, {1001, 2000}, {n - 20, n}}};
  }
};

TEST_F(CheckpointV2Test, ConvertsEveryBitAndField) {
  const Buffers b = buffers(1);
  CheckpointInfo with = info(7);
  with.inputs = {{"model.path", "weights", "sums:34"}};
  with.numerics = "f32-chain/1";
  with.device = "cpu";
  with.unix_time = 1'700'000'123;
  save(7, b, {}, &with);
  const json expected = json::parse(read_file(checkpoints() / "step_000007" / kManifestFile));
  const fs::path old = save_v2(7, b, cuts());
  {
    json manifest = json::parse(read_file(old / kManifestFile));
    for (const auto& [key, value] : expected.items()) {
      if (key != "modules" && key != "files" && key != "format_version") manifest[key] = value;
    }
    rewrite_manifest(old, manifest.dump());
  }
  EXPECT_THAT(open_error(old), HasSubstr("convert it with orrery ckpt convert "));
  std::map<fs::path, std::string> before;
  for (const auto& entry : fs::recursive_directory_iterator(old)) {
    if (entry.is_regular_file()) before[entry.path()] = read_file(entry.path());
  }
  const fs::path made = folder_ / "new" / "step_000007";
  const std::string hash = CheckpointV2(old).convert(made);
  const Checkpoint c(made);
  EXPECT_EQ(checkpoint_hash(c), hash);
  EXPECT_EQ(checkpoint_hash(c), checkpoint_hash(7, table_, b.weights, b.m, b.v));
  EXPECT_EQ(c.saving_ranks(), 3);
  const Buffers read = load(made);
  EXPECT_EQ(read.weights, b.weights);
  EXPECT_EQ(read.m, b.m);
  EXPECT_EQ(read.v, b.v);
  json now = json::parse(read_file(made / kManifestFile)), then = expected;
  for (json* manifest : {&now, &then}) manifest->erase("files");
  EXPECT_EQ(now, then);
  for (const auto& [path, bytes] : before) EXPECT_EQ(read_file(path), bytes) << path;
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "new"), {}), 1)
      << "nothing is left over";
  EXPECT_THAT(error_of([&] { CheckpointV2(old).convert(made); }), HasSubstr("exists"));
}

TEST_F(CheckpointV2Test, WhatAnOlderProgramWroteKeepsItsHash) {
  const fs::path old = fs::path(ORRERY_SOURCE_DIR) / "tests/data/run_v2/checkpoints/step_000003";
  CheckpointV2(old).convert(folder_ / "step_000003");
  const Checkpoint c(folder_ / "step_000003");
  EXPECT_EQ(checkpoint_hash(c), "1b8f9942e076a5c316b9292e6bddddb9b0f2694a054fa5837d4a6754bd531790");
  EXPECT_EQ(c.info().state->adam_t, 3);
  EXPECT_FALSE(c.tokenizer_folder().empty());
}

TEST_F(CheckpointV2Test, ARunOfThemSaysSoOnce) {
  save_v2(7, buffers(1), cuts());
  save_v2(8, buffers(1), cuts());
  std::string rejected;
  const auto note = [&](const fs::path& path, const std::string& why) {
    rejected += path.filename().string() + ": " + why + "; ";
  };
  const std::string error = error_of([&] { latest_good_checkpoint(checkpoints(), note); });
  EXPECT_THAT(error, HasSubstr("step_000008 is of format version 2; this program reads version 3"));
  EXPECT_EQ(rejected, "");
  EXPECT_THROW(latest_good_checkpoint(checkpoints(), note), OldFormat);
  save(6, buffers(1));
  EXPECT_EQ(latest_good_checkpoint(checkpoints(), note)->info().step, 6);
  EXPECT_THAT(rejected,
              testing::AllOf(testing::StartsWith("step_000008: "), HasSubstr("; step_000007: ")));
}

TEST_F(CheckpointV2Test, WhatIsNoneIsRefusedAndNothingIsLeft) {
  const Buffers b = buffers(1);
  const fs::path old = save_v2(7, b, cuts()), made = folder_ / "new" / "step_000007";
  const std::string good = read_file(old / kManifestFile);
  const auto refused = [&](const std::string& why) {
    const std::string error = error_of([&] { CheckpointV2(old).convert(made); });
    EXPECT_THAT(error, testing::AllOf(HasSubstr(why), Not(HasSubstr("\n"))));
    EXPECT_FALSE(fs::exists(made));
    EXPECT_FALSE(fs::exists(made.parent_path()) && !fs::is_empty(made.parent_path()));
  };
  const auto with = [&](const std::function<void(json&)>& change, const std::string& why) {
    json manifest = json::parse(good);
    change(manifest);
    rewrite_manifest(old, manifest.dump());
    refused(why);
  };
  with([](json& m) { m["format_version"] = 1; },
       "is of format version 1; version 2 is what can be converted");
  with([](json& m) { m["format_version"] = 3; }, "this program reads it as it is");
  with([](json& m) { m["flat_size"] = 7; }, "not the one of its model_config");
  with([](json& m) { m["flat_size"] = m["flat_size"].get<int64_t>() + 16; },
       "not the one of its model_config");
  with([](json& m) { m["flat_size"] = int64_t{1} << 59; }, "not the one of its model_config");
  with([](json& m) { m["tensors"][1]["offset"] = 0; }, "not the one of its model_config");
  with([](json& m) { m["tensors"][1]["shape"] = {13}; }, "not the one of its model_config");
  with([](json& m) { m["tensors"].erase(0); }, "not the one of its model_config");
  with([](json& m) { m["files"][0]["extents"][0][1] = 6; }, "where one from 6 was expected");
  with([](json& m) { m["files"][0]["extents"][0] = {5, 0}; }, "a rising list of [begin, end]");
  with([](json& m) { m["files"][0]["extents"][0] = "x"; }, "a rising list of [begin, end]");
  with([](json& m) { m["files"][0]["sha256"] = std::string(64, '0'); }, "damaged");
  with(
      [](json& m) {
        m["files"][0]["extents"][0][1] = 4;
        m["files"][2]["extents"][0][0] = 4;
      },
      "its extents are not those in the manifest");
  rewrite_manifest(old, good);
  write_file_atomic(old / "tokenizer" / "tokenizer.json", "{}");
  refused("tokenizer.json: 2 bytes");
  write_file_atomic(old / kManifestFile, good + " ");
  refused("manifest.json: damaged");
}

// What a file of this version may hold is as narrow as in version 3.
TEST_F(CheckpointV2Test, ADatasetOfAnotherKindIsRefused) {
  const int64_t n = table_.flat_size();
  const hsize_t count = n;
  /// The error after /weights was made anew with this plan and in this shape.
  const auto error_with = [&](const std::function<void(hid_t plan)>& set_up,
                              std::vector<hsize_t> shape, hid_t type = H5T_IEEE_F32LE) {
    const fs::path old = save_v2(7, buffers(1), {{{0, n}}});
    change_file(old, [&](hid_t file) {
      H5Ldelete(file, "weights", H5P_DEFAULT);
      const Hdf5Handle plan(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "a");
      set_up(plan);
      const Hdf5Handle space(
          H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose, "b");
      const Hdf5Handle dataset(
          H5Dcreate2(file, "weights", type, space, H5P_DEFAULT, plan, H5P_DEFAULT), H5Dclose, "c");
    });
    return error_of([&] { CheckpointV2 opened(old); });
  };
  const auto plain = [](hid_t) {};
  EXPECT_EQ(error_with(plain, {count}), "no error");
  EXPECT_THAT(error_with(plain, {count - 1}), HasSubstr("values in 1 dimension(s)"));
  EXPECT_THAT(error_with(plain, {count / 2, 2}), HasSubstr("values in 2 dimension(s)"));
  EXPECT_THAT(error_with(plain, {count}, H5T_IEEE_F64LE),
              HasSubstr("weights: it holds floating-point numbers of 8 bytes"));
  EXPECT_THAT(error_with(
                  [&](hid_t plan) {
                    H5Pset_chunk(plan, 1, &count);
                    H5Pset_shuffle(plan);
                  },
                  {count}),
              HasSubstr("weights: its values are not in one piece"));
  EXPECT_THAT(error_with([](hid_t plan) { H5Pset_external(plan, "/etc/passwd", 0, H5F_UNLIMITED); },
                         {count}),
              HasSubstr("weights: its values are not in one piece"));
  for (const bool external : {false, true}) {
    const fs::path old = save_v2(7, buffers(1), {{{0, n}}});
    const fs::path other = old / rank_file_name(0, 1);
    fs::copy_file(other, folder_ / "other.h5", fs::copy_options::overwrite_existing);
    change_file(old, [&](hid_t file) {
      H5Ldelete(file, "weights", H5P_DEFAULT);
      if (external) {
        H5Lcreate_external((folder_ / "other.h5").c_str(), "/weights", file, "weights", H5P_DEFAULT,
                           H5P_DEFAULT);
      } else {
        H5Lcreate_soft("/adam_m", file, "weights", H5P_DEFAULT, H5P_DEFAULT);
      }
    });
    EXPECT_THAT(error_of([&] { CheckpointV2 opened(old); }), HasSubstr("open weights of"));
  }
}

}  // namespace
}  // namespace orrery::storage
