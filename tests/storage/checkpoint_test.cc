#include "storage/checkpoint.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "storage/checkpoint_report.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_checkpoint.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_support::checkpoint_info;
using testing_support::open_error;
using testing_support::rewrite_manifest;
using testing_support::tiny_checkpoint_config;

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest()
      : scratch_("orrery_checkpoint_"), config_(tiny_checkpoint_config(2)), table_(config_) {
    fs::create_directories(folder_ / "model");
    write_file_atomic(folder_ / "model" / "tokenizer.json", R"({"model": {}})");
    write_file_atomic(folder_ / "model" / "generation_config.json", "{}");
  }

  fs::path checkpoints() const { return folder_ / "run" / "checkpoints"; }

  /// Weights and moments that are a function of the seed.
  struct Buffers {
    std::vector<float> weights, m, v;
  };
  Buffers buffers(uint64_t seed) const {
    const auto n = static_cast<size_t>(table_.flat_size());
    Buffers b{std::vector<float>(n), std::vector<float>(n), std::vector<float>(n)};
    uint64_t stream = 0;
    for (auto* values : {&b.weights, &b.m, &b.v}) {
      Philox random(seed, RngPurpose::kTest, stream++);
      for (const models::Parameter& p : table_.parameters()) {
        for (int64_t i = 0; i < p.size; ++i)
          (*values)[static_cast<size_t>(p.offset + i)] = random.normal();
      }
    }
    return b;
  }

  CheckpointInfo info(int64_t step) const {
    CheckpointInfo i = checkpoint_info(step, config_);
    i.run_config_yaml = "seed: 1\nname: \"\xC3\xA9\"\n";
    i.state->adam_t = 3;
    i.state->val_before = 0.1;
    i.reward = 0.25;
    return i;
  }

  /// Saves cut at `cuts` (0 and flat_size added): a rank for each part, or `ranks`
  /// taking turns.
  fs::path save(int64_t step, const Buffers& b, std::vector<int64_t> cuts = {},
                const CheckpointInfo* with = nullptr, int64_t ranks = 0) const {
    cuts.insert(cuts.begin(), 0);
    cuts.push_back(table_.flat_size());
    if (ranks == 0) ranks = static_cast<int64_t>(cuts.size()) - 1;
    const fs::path temporary = prepare_checkpoint(checkpoints(), step);
    std::vector<CheckpointFileEntry> entries;
    for (int64_t r = 0; r < ranks; ++r) {
      std::vector<Extent> extents;
      Buffers part;
      for (size_t i = static_cast<size_t>(r); i + 1 < cuts.size();
           i += static_cast<size_t>(ranks)) {
        if (cuts[i] == cuts[i + 1]) continue;
        extents.push_back({cuts[i], cuts[i + 1]});
        const auto append = [&](std::vector<float>& to, const std::vector<float>& all) {
          to.insert(to.end(), all.begin() + cuts[i], all.begin() + cuts[i + 1]);
        };
        append(part.weights, b.weights);
        append(part.m, b.m);
        append(part.v, b.v);
      }
      entries.push_back(write_checkpoint_slice(temporary, r, ranks, table_.flat_size(),
                                               {extents, part.weights, part.m, part.v}));
    }
    const fs::path target = checkpoints() / checkpoint_name(step);
    publish_checkpoint(temporary, target, with != nullptr ? *with : info(step), table_, entries,
                       folder_ / "model");
    return target;
  }

  Buffers load(const fs::path& path) const {
    const Checkpoint c(path);
    Buffers b = buffers(0);
    c.read(0, c.flat_size(), b.weights, b.m, b.v);
    return b;
  }

  static void overwrite(const fs::path& path, const std::string& bytes) {  // without the fsyncs
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }

  const testing_support::ScratchPath scratch_;
  const fs::path& folder_ = scratch_.path();
  models::ModelConfig config_;
  models::ParameterTable table_;
};

TEST_F(CheckpointTest, HoldsEverythingThatWasSaved) {
  const Buffers b = buffers(1);
  const fs::path path = save(123, b, {100, 100, 2000});
  EXPECT_EQ(path.filename(), "step_000123");
  const Checkpoint c(path);
  EXPECT_EQ(c.saving_ranks(), 4);
  EXPECT_EQ(c.info().step, 123);
  EXPECT_EQ(c.info().stage, "grpo");
  EXPECT_EQ(c.info().run_config_yaml, info(1).run_config_yaml);
  EXPECT_EQ(c.info().model_config_json, info(1).model_config_json);
  ASSERT_TRUE(c.info().state.has_value());
  EXPECT_EQ(state_to_json(*c.info().state), state_to_json(*info(123).state));
  EXPECT_EQ(c.info().reward, 0.25);
  EXPECT_GT(c.info().unix_time, 1'700'000'000);
  EXPECT_EQ(c.config().hidden_size, 12);
  EXPECT_EQ(read_file(c.tokenizer_folder() / "tokenizer.json"), R"({"model": {}})");
  const Buffers read = load(path);
  EXPECT_EQ(read.weights, b.weights);
  EXPECT_EQ(read.m, b.m);
  EXPECT_EQ(read.v, b.v);
}

TEST_F(CheckpointTest, LoadsAnyRangeWhateverTheSavingRanks) {
  const Buffers b = buffers(2);
  const int64_t n = table_.flat_size();
  save(1, b, {n / 3, n / 2});
  save(2, b, {n / 7, n / 5, n / 3, n / 2}, nullptr, 2);  // each rank holds several stretches
  for (const auto& [step, ranks] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {1, 2}, {1, 5}, {1, 7}, {2, 1}, {2, 2}, {2, 5}, {2, 7}}) {
    const Checkpoint c(checkpoints() / checkpoint_name(step), Checkpoint::Verify::kOnRead);
    for (int64_t r = 0; r < ranks; ++r) {
      const int64_t begin = n * r / ranks, end = n * (r + 1) / ranks;
      std::vector<float> w(static_cast<size_t>(end - begin)), m(w), v(w);
      c.read(begin, end, w, m, v);
      EXPECT_TRUE(std::equal(w.begin(), w.end(), b.weights.begin() + begin));
      EXPECT_TRUE(std::equal(m.begin(), m.end(), b.m.begin() + begin));
      EXPECT_TRUE(std::equal(v.begin(), v.end(), b.v.begin() + begin));
    }
  }
  std::vector<float> v(10);
  const Checkpoint c(checkpoints() / checkpoint_name(1), Checkpoint::Verify::kOnRead);
  c.read(n / 3 - 5, n / 3 + 5, {}, {}, v);  // across two files, one dataset
  EXPECT_TRUE(std::equal(v.begin(), v.end(), b.v.begin() + n / 3 - 5));
}

TEST_F(CheckpointTest, HashDependsOnTheNumbersOnly) {
  Buffers b = buffers(3);
  const std::string expected = checkpoint_hash(7, table_, b.weights, b.m, b.v);
  EXPECT_EQ(expected.size(), 64u);
  CheckpointInfo other = info(7);
  other.reward = std::nan("");
  other.run_config_yaml = "x: 2";
  other.state->adam_t = 99;
  other.state->reward = std::nan("");
  other.unix_time = 5;
  for (const auto& cuts : {std::vector<int64_t>{}, {1}, {160, 161, 900}, {0, 0, 3000, 3000}}) {
    EXPECT_EQ(checkpoint_hash(Checkpoint(save(7, b, cuts))), expected);
    EXPECT_EQ(checkpoint_hash(Checkpoint(save(7, b, cuts, &other))), expected);
  }
  EXPECT_EQ(Checkpoint(checkpoints() / "step_000007").info().reward, std::nullopt);
  EXPECT_NE(checkpoint_hash(8, table_, b.weights, b.m, b.v), expected);
  for (auto* values : {&b.weights, &b.m, &b.v}) {
    const float old = (*values)[5];
    (*values)[5] = std::nextafterf(old, 10.0f);
    EXPECT_NE(checkpoint_hash(7, table_, b.weights, b.m, b.v), expected);
    (*values)[5] = old;
  }
}

TEST_F(CheckpointTest, EveryBitFlipAndTruncationIsDetected) {
  const fs::path path = save(4, buffers(4), {500});
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  ASSERT_EQ(files.size(), 6u);  // 2 slices, the manifest and its hash, 2 of the tokenizer
  Philox random(9, RngPurpose::kTest);
  for (int i = 0; i < 200; ++i) {
    const fs::path& file = files[random.below(static_cast<uint32_t>(files.size()))];
    const std::string good = read_file(file);
    std::string bad = good;
    bad[random.below(static_cast<uint32_t>(bad.size()))] ^=
        static_cast<char>(1u << random.below(8));
    overwrite(file, bad);
    EXPECT_THAT(open_error(path), HasSubstr(path.string())) << file;
    overwrite(file, good);
  }
  for (const fs::path& file : files) {
    const std::string good = read_file(file);
    for (const size_t size : {size_t{0}, good.size() / 2, good.size() - 1}) {
      overwrite(file, good.substr(0, size));
      EXPECT_NE(open_error(path), "") << file << " cut to " << size;
    }
    overwrite(file, good + "x");
    EXPECT_NE(open_error(path), "");
    fs::remove(file);
    EXPECT_NE(open_error(path), "");
    overwrite(file, good);
  }
  EXPECT_EQ(open_error(path), "");
}

TEST_F(CheckpointTest, DamagedSliceIsNotParsedOnRead) {
  const fs::path path = save(4, buffers(4), {500});
  const fs::path file = path / checkpoint_slice_name(1, 2);
  std::string bytes = read_file(file);
  bytes[3] ^= 1;
  write_file_atomic(file, bytes);
  const Checkpoint c(path, Checkpoint::Verify::kOnRead);
  std::vector<float> w(500);
  c.read(0, 500, w, {}, {});
  try {
    c.read(1, 501, w, {}, {});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("rank_0001_of_0002.h5"), HasSubstr("damaged")));
  }
}

TEST_F(CheckpointTest, ManifestThatLiesIsRejected) {
  const fs::path path = save(4, buffers(4), {500});
  const std::string good = read_file(path / kManifestFile);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    rewrite_manifest(path, text);
    return open_error(path);
  };
  EXPECT_EQ(with("grpo", "sft"), "");
  EXPECT_EQ(with("\"format_version\": 2", "\"format_version\": 1"),
            path.string() + " is of format version 1; this program reads version 2");
  EXPECT_THAT(with("rank_0001_of_0002.h5", "../rank_0001_of_02.h5"), HasSubstr("name"));
  EXPECT_THAT(with("tokenizer/tokenizer.json", "tokenizer/../../../x"),
              HasSubstr("tokenizer file"));
  EXPECT_THAT(with("     500\n", "     501\n"), HasSubstr("where an extent from 501 was expected"));
  EXPECT_THAT(
      with("     500\n", "     \"500\"\n"),
      HasSubstr("extents of rank_0000_of_0002.h5 hold [0,\"500\"]; a list of [begin, end]"));
  EXPECT_THAT(with("     500\n", "     500, 501\n"),
              HasSubstr("hold [0,500,501]; a list of [begin, end]"));
  EXPECT_THAT(with("     500\n", "     \"" + std::string(999, 'x') + "\"\n"),
              HasSubstr("xxx...; a list of"));
  EXPECT_THAT(with("     500\n", "     -1\n"), HasSubstr("do not rise"));
  EXPECT_THAT(with("\"hidden_size\": 12", "\"hidden_size\": 16"), HasSubstr("tensors"));
  EXPECT_THAT(with("\"hidden_size\": 12", "\"hidden_size\": -1"), HasSubstr("hidden_size"));
  EXPECT_THAT(with("\"flat_size\": ", "\"flat_size\": 9"), HasSubstr("manifest.json"));
  EXPECT_THAT(with("\"step\": 4", "\"step\": -4"), HasSubstr("step"));
  EXPECT_THAT(with("\"step\": 4", "\"step\": 1e99"), HasSubstr("step"));
  EXPECT_THAT(with("\"offset\": 0", "\"offset\": 16"), HasSubstr("tensors"));
  EXPECT_THAT(with("{", "["), HasSubstr("JSON"));
}

TEST_F(CheckpointTest, FallsBackToTheNewestGoodOneAndSaysWhy) {
  for (int64_t step : {1, 2, 3}) save(step, buffers(static_cast<uint64_t>(step)));
  fs::create_directories(checkpoints() / "step_000009.tmp-save");
  fs::create_directories(checkpoints() / "step_x");
  std::vector<std::string> reasons;
  const auto note = [&](const fs::path& path, const std::string& reason) {
    reasons.push_back(path.filename().string() + ": " + reason);
  };
  EXPECT_EQ(latest_good_checkpoint(checkpoints(), note)->info().step, 3);
  EXPECT_THAT(reasons, IsEmpty());

  fs::resize_file(checkpoints() / "step_000003" / checkpoint_slice_name(0, 1), 5000);
  fs::remove(checkpoints() / "step_000002" / kManifestFile);
  const auto summaries = list_checkpoints(checkpoints());
  ASSERT_EQ(summaries.size(), 3u);
  EXPECT_EQ(summaries[0].problem, "");
  EXPECT_EQ(summaries[0].info.reward, 0.25);
  EXPECT_GT(summaries[0].bytes, table_.flat_size() * 12);
  EXPECT_THAT(summaries[1].problem, HasSubstr("manifest.json is missing"));
  EXPECT_THAT(summaries[2].problem, HasSubstr("5000 bytes"));

  const auto good = latest_good_checkpoint(checkpoints(), note);
  ASSERT_TRUE(good.has_value());
  EXPECT_EQ(good->info().step, 1);
  ASSERT_EQ(reasons.size(), 2u);
  EXPECT_THAT(reasons[0], HasSubstr("step_000003: "));
  EXPECT_THAT(reasons[1], HasSubstr("step_000002: "));
  EXPECT_FALSE(latest_good_checkpoint(folder_ / "nowhere", note).has_value());
  EXPECT_THAT(list_checkpoints(folder_ / "nowhere"), IsEmpty());
}

TEST_F(CheckpointTest, OldOnesGoAndTheNewestGoodOneStays) {
  for (int64_t step : {1, 2, 3, 4, 5}) save(step, buffers(static_cast<uint64_t>(step)));
  fs::create_directories(checkpoints() / "step_000009.tmp-save");
  write_file_atomic(checkpoints() / "notes.tmp-mine", "stays");
  const auto steps = [&] {
    std::vector<int64_t> result;
    for (const auto& s : list_checkpoints(checkpoints())) result.push_back(s.step);
    return result;
  };
  remove_old_checkpoints(checkpoints(), 0);
  EXPECT_EQ(steps().size(), 5u);
  EXPECT_FALSE(fs::exists(checkpoints() / "step_000009.tmp-save"));
  EXPECT_TRUE(fs::exists(checkpoints() / "notes.tmp-mine"));
  remove_old_checkpoints(checkpoints(), 3);
  EXPECT_EQ(steps(), (std::vector<int64_t>{3, 4, 5}));
  for (const char* bad : {"step_000004", "step_000005"}) {
    fs::remove(checkpoints() / bad / checkpoint_slice_name(0, 1));
  }
  remove_old_checkpoints(checkpoints(), 1);
  EXPECT_EQ(steps(), (std::vector<int64_t>{3, 4, 5}));
  fs::remove(checkpoints() / "step_000003" / kManifestFile);
  remove_old_checkpoints(checkpoints(), 1);  // none is known to be good: none goes
  EXPECT_EQ(steps(), (std::vector<int64_t>{3, 4, 5}));
}

TEST_F(CheckpointTest, UnusableFoldersDoNotCountAndStay) {
  for (int64_t step = 1; step <= 9; ++step) save(step, buffers(static_cast<uint64_t>(step)));
  const auto of = [&](int64_t step) { return checkpoints() / checkpoint_name(step); };
  const auto steps = [&] {
    std::vector<int64_t> result;
    for (const auto& s : list_checkpoints(checkpoints())) result.push_back(s.step);
    return result;
  };
  const auto flip = [](const fs::path& path) {
    std::string bytes = read_file(path);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write_file_atomic(path, bytes);
  };
  flip(of(2) / checkpoint_slice_name(0, 1));  // the right size, another digest
  fs::remove(of(4) / kManifestFile);          // torn
  fs::resize_file(of(6) / checkpoint_slice_name(0, 1), 100);
  fs::remove_all(of(7));
  fs::create_directory(of(7));  // empty
  fs::remove_all(of(8));
  fs::copy(of(9), of(8), fs::copy_options::recursive);  // its manifest is of another step
  std::set<fs::path> verified;
  remove_old_checkpoints(checkpoints(), 2, &verified);
  EXPECT_EQ(steps(), (std::vector<int64_t>{2, 4, 5, 6, 7, 8, 9}))
      << "5 and 9 are the two newest good ones";
  EXPECT_THAT(verified, testing::UnorderedElementsAre(of(5), of(9)));
  save(10, buffers(10));
  remove_old_checkpoints(checkpoints(), 2, &verified);
  EXPECT_EQ(steps(), (std::vector<int64_t>{2, 4, 6, 7, 8, 9, 10}));
  fs::remove_all(of(8));
  write_file_atomic(of(8), "a file");
  remove_old_checkpoints(checkpoints(), 1, &verified);
  EXPECT_EQ(steps(), (std::vector<int64_t>{2, 4, 6, 7, 10}));
}

TEST_F(CheckpointTest, ReportsStatisticsAndDifferences) {
  Buffers a = buffers(1), b = a;
  const models::Parameter& p = table_.parameters()[2];
  const auto at = [&](std::vector<float>& values, int64_t i) -> float& {
    return values[static_cast<size_t>(p.offset + i)];
  };
  at(a.weights, 0) = 3.0f;
  at(b.weights, 0) = 4.0f;
  at(a.weights, 1) = 0.0f;
  at(b.weights, 1) = -0.0f;
  at(b.v, 5) = NAN;
  at(a.weights, 2) = at(b.weights, 2) = NAN;
  const Checkpoint x(save(1, a, {50})), y(save(2, b));
  const CheckpointDiff diff = diff_checkpoints(x, y);
  EXPECT_FALSE(diff.equal_tensors());
  EXPECT_EQ(diff.tensors.size(), table_.parameters().size());
  for (const TensorDiff& t : diff.tensors) EXPECT_EQ(t.equal(), t.name != p.name);
  const TensorDiff& t = diff.tensors[2];
  EXPECT_EQ(t.weights.differing, 2);
  EXPECT_EQ(t.weights.max_abs, 1.0);
  EXPECT_EQ(t.weights.max_rel, 0.25);
  EXPECT_EQ(t.adam_m.differing, 0);
  EXPECT_EQ(t.adam_v.differing, 1);
  EXPECT_TRUE(std::isinf(t.adam_v.max_abs));
  EXPECT_TRUE(diff_checkpoints(x, x).equal_tensors());

  const TensorStats stats = weight_stats(x)[2];
  EXPECT_EQ(stats.name, p.name);
  EXPECT_EQ(stats.nan_count, 1);
  double squares = 0;
  for (int64_t i = 0; i < p.size; ++i) {
    const double v = at(a.weights, i);
    if (i != 2) squares += v * v;
  }
  EXPECT_DOUBLE_EQ(stats.norm, std::sqrt(squares));
  EXPECT_GE(stats.max, 3.0);
}

TEST_F(CheckpointTest, SavingAgainReplaces) {
  const fs::path path = save(6, buffers(1), {77});
  const Buffers b = buffers(2);
  EXPECT_EQ(save(6, b), path);
  EXPECT_EQ(load(path).weights, b.weights);
  EXPECT_FALSE(fs::exists(path / checkpoint_slice_name(1, 2)));
  size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(checkpoints())) ++entries;
  EXPECT_EQ(entries, 1u);
}

TEST_F(CheckpointTest, ASaveRemovesWhatFailedOnesLeft) {
  fs::create_directories(checkpoints() / "step_000008.tmp-save" / "x");
  fs::create_directories(checkpoints() / "step_000002.tmp-removed");
  save(9, buffers(1));
  size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(checkpoints())) ++entries;
  EXPECT_EQ(entries, 1u);
}

TEST_F(CheckpointTest, WhatCannotBePublishedIsAnError) {
  const Buffers b = buffers(1);
  CheckpointInfo bad = info(1);
  bad.state->rl_step = 2;
  EXPECT_THROW(save(1, b, {}, &bad), Error);
  bad = info(1);
  bad.run_config_yaml = "\xff";
  EXPECT_THROW(save(1, b, {}, &bad), Error);
  EXPECT_THAT(list_checkpoints(checkpoints()), IsEmpty());
  const fs::path temporary = prepare_checkpoint(checkpoints(), 1);
  EXPECT_THROW(
      publish_checkpoint(temporary, checkpoints() / "step_000001", info(1), table_, {}, {}), Error);
}

TEST_F(CheckpointTest, FullDiskIsOneErrorAndKeepsTheEarlierCheckpoint) {
  fs::create_directories(checkpoints());
  const auto mount_pages = [&](int64_t pages, unsigned long flags) {
    const std::string options = fmt::format("size={}", pages * 4096);
    return ::mount("tmpfs", checkpoints().c_str(), "tmpfs", flags, options.c_str()) == 0;
  };
  constexpr int64_t kRoomy = 256;
  if (!mount_pages(kRoomy, 0)) GTEST_SKIP() << "needs the right to mount a tmpfs";
  struct Unmount {
    fs::path path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } const unmount{checkpoints()};
  const Buffers b = buffers(1);
  const fs::path good = save(1, b);
  struct statvfs status {};
  ASSERT_EQ(::statvfs(checkpoints().c_str(), &status), 0);
  const auto used = static_cast<int64_t>(status.f_blocks - status.f_bfree);
  int failed = 0, saved = 0;
  for (int64_t spare = 0; spare <= 2 * used + 8; ++spare) {  // full at every point of a save
    ASSERT_TRUE(mount_pages(used + spare, MS_REMOUNT));
    try {
      save(2, b);
      ++saved;
      fs::remove_all(checkpoints() / "step_000002");
    } catch (const Error& e) {
      ++failed;
      EXPECT_THAT(e.what(), HasSubstr("No space left on device")) << spare;
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      EXPECT_EQ(open_error(good), "");
      EXPECT_EQ(list_checkpoints(checkpoints()).size(), 1u);
    }
  }
  EXPECT_GT(failed, 3);
  EXPECT_GT(saved, 0);
  EXPECT_EQ(load(good).weights, b.weights);
}

// The child meets "file too large" at several lengths of the file.
TEST_F(CheckpointTest, FailedWriteIsOneErrorAndKeepsTheEarlierCheckpoint) {
  const Buffers b = buffers(1);
  const fs::path good = save(1, b);
  const auto whole = static_cast<rlim_t>(fs::file_size(good / checkpoint_slice_name(0, 1)));
  for (const rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{3000}, whole / 2, whole - 1}) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    std::fflush(nullptr);  // or the child prints the buffer too
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit size{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &size);
      std::string text = "no error";
      try {
        save(2, b);
      } catch (const Error& e) {
        text = e.what();
      }
      const ssize_t written = ::write(ends[1], text.data(), text.size());
      std::exit(written == static_cast<ssize_t>(text.size()) ? 0 : 3);  // with HDF5's own clean-up
    }
    ::close(ends[1]);
    std::string text(4096, '\0');
    const ssize_t n = ::read(ends[0], text.data(), text.size());
    ::close(ends[0]);
    text.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << "limit " << limit << " status " << status;
    EXPECT_THAT(text,
                AllOf(HasSubstr("File too large"), HasSubstr("earlier checkpoints are untouched")))
        << limit;
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 0);
    EXPECT_EQ(latest_good_checkpoint(checkpoints(), [](const fs::path&, const std::string&) {})
                  ->info()
                  .step,
              1);
    EXPECT_EQ(load(good).weights, b.weights);
  }
}

TEST_F(CheckpointTest, KillDuringASaveLeavesAnEarlierCheckpoint) {
  const std::vector<Buffers> all = {buffers(0), buffers(1)};
  save(1, all[1]);
  for (int round = 0; round < 12; ++round) {
    std::fflush(nullptr);  // or the child prints the buffer too
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int64_t step = 1;;
           ++step) {  // the same two steps again and again: replacing is tested too
        save(1 + step % 2, all[static_cast<size_t>((1 + step % 2) % 2)], {100, 200, 300});
        remove_old_checkpoints(checkpoints(), 2);
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + 7 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
    const auto good =
        latest_good_checkpoint(checkpoints(), [](const fs::path& path, const std::string& reason) {
          ADD_FAILURE() << "a published checkpoint is bad: " << path << ": " << reason;
        });
    ASSERT_TRUE(good.has_value());
    EXPECT_EQ(load(good->folder()).weights,
              all[static_cast<size_t>(good->info().step % 2)].weights);
    remove_old_checkpoints(checkpoints(), 2);
    for (const auto& entry : fs::directory_iterator(checkpoints())) {
      EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace orrery::storage
