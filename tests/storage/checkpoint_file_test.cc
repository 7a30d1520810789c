// Files of several blocks, written in pieces, whoever does the pieces; and the files'
// structure.
#include "storage/checkpoint_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/sha256.h"
#include "storage/checkpoint_layout.h"
#include "storage/hdf5_handle.h"
#include "storage/hdf5_lock.h"
#include "tests/support/scratch.h"

namespace orrery::storage {
namespace {

using testing::HasSubstr;

StoredModule module_of(int64_t tensors, int64_t size) {
  StoredModule module{"policy", true, {}};
  for (int64_t i = 0; i < tensors; ++i)
    module.tensors.push_back(
        {fmt::format("model.layers.{}.mlp.gate_proj.weight", i), {size}, size});
  return module;
}

TEST(CheckpointFile, TheDigestIsOfWhatIsOnTheDiskWhoeverWritesThePieces) {
  const testing_support::ScratchFolder scratch;
  constexpr int64_t kCount = (20 << 20) / sizeof(float) + 123;  // three blocks, the last one odd
  std::vector<float> values(static_cast<size_t>(kCount));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 9973) * 0.5f;
  const ModulePart part{
      module_of(1, kCount + 10), {{0, {5, 5 + kCount}, 0}}, values, values, values};

  const RankFile plain = write_rank_file(scratch.path() / "plain.h5", {&part, 1});
  LowPriorityWorker worker;
  int pieces = 0;
  const RankFile by_worker =
      write_rank_file(scratch.path() / "quiet.h5", {&part, 1}, [&](const auto& piece) {
        worker.run(piece);
        worker.set_urgent(++pieces > 60);  // somebody begins to wait in the middle
      });
  EXPECT_GE(pieces, 120);
  EXPECT_EQ(by_worker.sha256, plain.sha256);
  EXPECT_EQ(by_worker.bytes, plain.bytes);
  for (const char* name : {"plain.h5", "quiet.h5"}) {
    const std::string bytes = read_file(scratch.path() / name);
    EXPECT_EQ(std::ssize(bytes), plain.bytes);
    EXPECT_EQ(sha256_hex(std::as_bytes(std::span(bytes))), plain.sha256) << name;
    std::vector<float> read(values.size());
    read_rank_file(scratch.path() / name, part.module, held_modules({&part, 1})["policy"],
                   part.slices, {read});
    EXPECT_EQ(read, values);
  }
}

TEST(CheckpointFile, AnErrorOfAPieceEndsTheFile) {
  const testing_support::ScratchFolder scratch;
  std::vector<float> values(1 << 20);
  const ModulePart part{module_of(1, 1 << 20), {{0, {0, 1 << 20}, 0}}, values, values, values};
  int pieces = 0;
  EXPECT_THROW(write_rank_file(scratch.path() / "f.h5", {&part, 1},
                               [&](const auto& piece) {
                                 if (++pieces == 3) fail("the disk is gone");
                                 piece();
                               }),
               Error);
  EXPECT_FALSE(std::filesystem::exists(scratch.path() / "f.h5"));
}

/// The layout of a file that has `slices` slices of `size` elements of each tensor.
FileLayout layout_of(int64_t tensors, int64_t size, int64_t slices = 1) {
  const StoredModule module = module_of(tensors, 3 * size * slices);
  std::vector<Extent> held;
  for (int64_t i = 0; i < slices; ++i) held.push_back({3 * size * i, 3 * size * i + size});
  std::vector<PlannedDataset> datasets;
  for (int64_t kind = 0; kind < module.kinds(); ++kind) {
    for (const StoredTensor& tensor : module.tensors)
      datasets.push_back({&module, kind, &tensor, held});
  }
  FileLayout layout("layout", datasets);
  EXPECT_LE(layout.image().size(), layout.offsets().front()) << "the structure is before them";
  for (size_t i = 1; i < datasets.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    EXPECT_EQ(layout.offsets()[at], layout.offsets()[at - 1] + 4 * size * slices) << "no gaps";
  }
  EXPECT_EQ(layout.bytes(), layout.offsets().back() + 4 * size * slices) << "nor behind them";
  return layout;
}

TEST(CheckpointFile, TheStructureDoesNotGrowWithTheNumbers) {
  const int64_t small = layout_of(272, 16).image().size();
  EXPECT_EQ(layout_of(272, int64_t{1} << 32).image().size(), small);
  EXPECT_LT(small, 900 << 10);
  EXPECT_LT(layout_of(1, 16).image().size(), 32 << 10);
}

TEST(CheckpointFile, TheStructureOfManyModulesIsBeforeTheNumbers) {
  std::vector<StoredModule> modules(100, module_of(1, 1000));
  std::vector<PlannedDataset> datasets;
  const Extent all{0, 1000};
  for (size_t i = 0; i < modules.size(); ++i) {
    modules[i].name = fmt::format("module{}", i);
    for (int64_t kind = 0; kind < modules[i].kinds(); ++kind)
      datasets.push_back({&modules[i], kind, modules[i].tensors.data(), {&all, 1}});
  }
  const FileLayout layout("layout", datasets);
  EXPECT_LE(layout.image().size(), layout.offsets().front());
  EXPECT_EQ(layout.bytes(), layout.offsets().front() + 300 * 4000);
}

TEST(CheckpointFile, ThousandsOfDatasetsAndSlicesWork) {
  layout_of(3000, 8);
  layout_of(20, 8, 3900);
  EXPECT_THROW(layout_of(1, 8, 4100), Error);

  const testing_support::ScratchFolder scratch;
  const StoredModule module = module_of(2000, 5);
  std::vector<float> values(7 * 2000);
  std::vector<models::HeldSlice> slices;
  for (int64_t i = 0; i < 2000; ++i) {
    slices.push_back({i, {1, 4}, 7 * i + 2});
    for (int64_t j = 0; j < 3; ++j)
      values[static_cast<size_t>(7 * i + 2 + j)] = static_cast<float>(4 * i + j + 1);
  }
  const ModulePart part{module, slices, values, values, values};
  write_rank_file(scratch.path() / "f.h5", {&part, 1});
  const HeldModules held = held_modules({&part, 1});
  check_rank_file(scratch.path() / "f.h5", {&module, 1}, held);
  std::vector<float> read(values.size());
  read_rank_file(scratch.path() / "f.h5", module, held.at("policy"), slices,
                 {std::span<float>(), std::span<float>(), read});
  EXPECT_EQ(read, values);
}

TEST(CheckpointFile, ARankThatHoldsNothingHasAFile) {
  const testing_support::ScratchFolder scratch;
  const ModulePart part{module_of(3, 5), {}, {}, {}, {}};
  EXPECT_GT(write_rank_file(scratch.path() / "f.h5", {&part, 1}).bytes, 0);
  EXPECT_TRUE(held_modules({&part, 1}).empty());
  check_rank_file(scratch.path() / "f.h5", {&part.module, 1}, {});
}

// The reader takes what it knows, and says what it has found instead.
TEST(CheckpointFile, ADatasetOfAnotherKindIsNamed) {
  const testing_support::ScratchFolder scratch;
  const std::filesystem::path path = scratch.path() / "f.h5";
  const StoredModule module{"policy", false, {{"w", {2, 3}, 6}}};
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const ModulePart part{module, {{0, {0, 6}, 0}}, values, {}, {}};
  const HeldModules held = held_modules({&part, 1});
  /// The error after the dataset was made anew, of this type, with these attributes.
  const auto error_with = [&](hid_t type, const std::string& dtype, int64_t rows, int64_t end) {
    write_rank_file(path, {&part, 1});
    {
      const Hdf5Lock lock;
      const Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose, "open");
      H5Ldelete(file, "/policy/weights/w", H5P_DEFAULT);
      const hsize_t six = 6, two = 2, pair[] = {1, 2};
      const Hdf5Handle space(H5Screate_simple(1, &six, nullptr), H5Sclose, "a");
      const Hdf5Handle dataset(
          H5Dcreate2(file, "/policy/weights/w", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
          H5Dclose, "b");
      H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
      const auto attribute = [&](const char* name, hid_t of, hid_t as, hid_t shape,
                                 const void* value) {
        const Hdf5Handle a(H5Acreate2(dataset, name, of, shape, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                           "c");
        H5Awrite(a, as, value);
      };
      const int64_t sizes[] = {rows, 3}, bounds[] = {0, end};
      const Hdf5Handle list(H5Screate_simple(1, &two, nullptr), H5Sclose, "d");
      const Hdf5Handle pairs(H5Screate_simple(2, pair, nullptr), H5Sclose, "e");
      const Hdf5Handle scalar(H5Screate(H5S_SCALAR), H5Sclose, "f");
      const Hdf5Handle text(H5Tcopy(H5T_C_S1), H5Tclose, "g");
      H5Tset_size(text, dtype.size());
      attribute("shape", H5T_STD_I64LE, H5T_NATIVE_INT64, list, sizes);
      attribute("slices", H5T_STD_I64LE, H5T_NATIVE_INT64, pairs, bounds);
      attribute("dtype", text, text, scalar, dtype.data());
    }
    try {
      check_rank_file(path, {&module, 1}, held);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(error_with(H5T_IEEE_F32LE, "f32", 2, 6), "");
  EXPECT_THAT(error_with(H5T_IEEE_F32LE, "bf16", 2, 6),
              HasSubstr("f.h5: /policy/weights/w: its dtype is \"bf16\"; this program reads "
                        "\"f32\""));
  EXPECT_THAT(error_with(H5T_IEEE_F64LE, "f32", 2, 6),
              HasSubstr("it holds floating-point numbers of 8 bytes, not float32 values"));
  EXPECT_THAT(error_with(H5T_STD_I32LE, "f32", 2, 6), HasSubstr("it holds integers of 4 bytes"));
  EXPECT_THAT(error_with(H5T_IEEE_F32LE, "f32", 3, 6), HasSubstr("its shape is not the one"));
  EXPECT_THAT(error_with(H5T_IEEE_F32LE, "f32", 2, 5), HasSubstr("its slices are not those"));
}

}  // namespace
}  // namespace orrery::storage
