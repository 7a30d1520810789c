#include "storage/checkpoint.h"

#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "tests/storage/checkpoint_fixture.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_support::open_error;

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

TEST_F(CheckpointTest, LoadsAnyStretchesWhateverTheSavingRanks) {
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
      const Extent part{begin, end};
      c.read(models::kPolicy.name, table_.slices({&part, 1}), w, m, v);
      EXPECT_TRUE(std::equal(w.begin(), w.end(), b.weights.begin() + begin));
      EXPECT_TRUE(std::equal(m.begin(), m.end(), b.m.begin() + begin));
      EXPECT_TRUE(std::equal(v.begin(), v.end(), b.v.begin() + begin));
    }
  }
}

TEST_F(CheckpointTest, AReadFillsTheSlicesPlacesAndZeroesWhatIsBetween) {
  const Buffers b = buffers(2);
  const Checkpoint c(save(1, b, {table_.flat_size() / 3, table_.flat_size() / 2}));
  const models::Parameter& p = table_.parameters()[0];  // 37 x 12
  const Span<const float> saved = table_.values(Span<const float>(b.v), p);
  const std::vector<models::HeldSlice> wanted = {{0, {7, 10}, 2}, {0, {100, 101}, 6}};
  std::vector<float> v(9, 5.0f);
  c.read(models::kPolicy.name, wanted, {}, {}, v);
  EXPECT_EQ(v, (std::vector<float>{0, 0, saved[7], saved[8], saved[9], 0, saved[100], 0, 0}));
  EXPECT_THROW(c.read(models::kPolicy.name, wanted, {}, {}, std::span(v).first(6)), Error);
  const models::HeldSlice beyond{0, {p.size, p.size + 1}, 0};
  EXPECT_THROW(c.read(models::kPolicy.name, {&beyond, 1}, v), Error);
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
  const fs::path file = path / rank_file_name(1, 2);
  std::string bytes = read_file(file);
  bytes[3] ^= 1;
  write_file_atomic(file, bytes);
  const Checkpoint c(path, Checkpoint::Verify::kOnRead);
  std::vector<float> w(500);
  const Extent undamaged{0, 500}, damaged{1, 501};
  c.read(models::kPolicy.name, table_.slices({&undamaged, 1}), w);
  try {
    c.read(models::kPolicy.name, table_.slices({&damaged, 1}), w);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("rank_0001_of_0002.h5"), HasSubstr("damaged")));
  }
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

  fs::resize_file(checkpoints() / "step_000003" / rank_file_name(0, 1), 5000);
  fs::remove(checkpoints() / "step_000002" / kManifestFile);
  const auto summaries = list_checkpoints(checkpoints());
  ASSERT_EQ(summaries.size(), 3u);
  EXPECT_EQ(summaries[0].problem, "");
  EXPECT_EQ(summaries[0].info.reward, 0.25);
  EXPECT_GT(summaries[0].bytes, table_.parameter_count() * 12);
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
    fs::remove(checkpoints() / bad / rank_file_name(0, 1));
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
  flip(of(2) / rank_file_name(0, 1));  // the right size, another digest
  fs::remove(of(4) / kManifestFile);   // torn
  fs::resize_file(of(6) / rank_file_name(0, 1), 100);
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

TEST_F(CheckpointTest, SavingAgainReplaces) {
  const fs::path path = save(6, buffers(1), {77});
  const Buffers b = buffers(2);
  EXPECT_EQ(save(6, b), path);
  EXPECT_EQ(load(path).weights, b.weights);
  EXPECT_FALSE(fs::exists(path / rank_file_name(1, 2)));
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
  const StoredModule policy = stored_module(table_);
  EXPECT_THROW(
      publish_checkpoint(temporary, checkpoints() / "step_000001", info(1), {&policy, 1}, {}, {}),
      Error);
}

}  // namespace
}  // namespace orrery::storage
