#include "rollout/rollout_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <functional>

#include "core/error.h"
#include "core/file.h"
#include "storage/hdf5_arrays.h"
#include "tests/rollout/make_group.h"
#include "tests/support/scratch.h"

namespace orrery::rollout {
namespace {

using testing::HasSubstr;
using testing_support::expect_equal;
using testing_support::make_group;

class RolloutFileTest : public testing::Test {
 protected:
  std::filesystem::path temporary(const char* name) const { return scratch_.path() / name; }

 private:
  const testing_support::ScratchFolder scratch_;
};

TEST_F(RolloutFileTest, GivesBackWhatWasWritten) {
  const std::vector<Group> groups = {make_group(4, 10, 3), make_group(5, 11, 1),
                                     make_group(4, 2, 4)};
  const auto path = temporary("round_trip.h5");
  write_rollout_file(path, 123, groups);
  const RolloutFile file = read_rollout_file(path);
  EXPECT_EQ(file.step, 123u);
  ASSERT_EQ(file.groups.size(), groups.size());
  for (size_t i = 0; i < groups.size(); ++i) expect_equal(file.groups[i], groups[i]);
}

TEST_F(RolloutFileTest, GroupsDifferInSizeWhereSamplesWereDropped) {
  std::vector<Group> groups = {make_group(4, 10, 3), make_group(4, 11, 3), make_group(4, 12, 0),
                               make_group(4, 13, 2)};
  groups[0].dropped = 1;
  groups[1].samples.erase(groups[1].samples.begin() + 1);
  groups[1].dropped = 2;
  groups[2].dropped = 3;  // nothing is left of it
  const std::vector<std::string> prompts = {"<bos>1+1=", "two\nlines", "of none", ""};
  const auto path = temporary("dropped.h5");
  write_rollout_file(path, 9, groups, 4, {kValidationStage, prompts});
  const RolloutFile file = read_rollout_file(path);
  EXPECT_EQ(file.stage, "val");
  ASSERT_EQ(file.groups.size(), 3u);
  expect_equal(file.groups[0], groups[0]);
  expect_equal(file.groups[1], groups[1]);
  expect_equal(file.groups[2], groups[3]);
  EXPECT_THAT(file.prompt_texts, testing::ElementsAre("<bos>1+1=", "two\nlines", ""));
}

TEST_F(RolloutFileTest, TextsAreUtf8WhateverTheFileIsCalled) {
  std::vector<Group> groups = {make_group(4, 10, 1)};
  groups[0].samples[0].data_file = "caf\xE9.jsonl";
  const auto path = temporary("latin.h5");
  write_rollout_file(path, 9, groups);
  EXPECT_EQ(read_rollout_file(path).groups[0].samples[0].data_file,
            "caf\xEF\xBF\xBD"
            ".jsonl");
}

TEST_F(RolloutFileTest, SaysTheRunsStepAndTheStagesOwn) {
  const auto path = temporary("steps.h5");
  write_rollout_file(path, 606, {}, 6);
  EXPECT_EQ(read_rollout_file(path).step, 606u);
  EXPECT_EQ(read_rollout_file(path).stage_step, 6u);
  write_rollout_file(path, 6, {});  // as older programs did, which counted RL steps alone
  EXPECT_EQ(read_rollout_file(path).stage_step, 6u);
}

TEST_F(RolloutFileTest, HoldsNoSamplesToo) {
  const auto path = temporary("empty.h5");
  write_rollout_file(path, 1, {});
  EXPECT_TRUE(read_rollout_file(path).groups.empty());
}

TEST_F(RolloutFileTest, SameSamplesGiveTheSameBytesAndNoTemporaryStays) {
  const std::vector<Group> groups = {make_group(4, 10, 3)};
  const auto path = temporary("twice.h5");
  write_rollout_file(path, 9, groups);
  const std::string first = read_file(path);
  write_rollout_file(path, 9, groups);
  EXPECT_EQ(read_file(path), first);
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".tmp"));
}

TEST_F(RolloutFileTest, ReplacesNulInText) {
  std::vector<Group> groups = {make_group(4, 10, 1)};
  groups[0].samples[0].response_text = std::string("a\0b", 3);
  const auto path = temporary("nul.h5");
  write_rollout_file(path, 9, groups);
  EXPECT_EQ(read_rollout_file(path).groups[0].samples[0].response_text,
            "a\xEF\xBF\xBD"
            "b");
}

TEST_F(RolloutFileTest, LaysOutFlatArraysWithOffsets) {
  const std::vector<Group> groups = {make_group(4, 10, 2), make_group(4, 11, 1)};
  const auto path = temporary("layout.h5");
  write_rollout_file(path, 7, groups);
  const storage::Hdf5Reader in(path);
  std::vector<int64_t> offsets, group;
  std::vector<int8_t> reasons;
  std::vector<int32_t> tokens;
  in.read("token_offsets", offsets);
  in.read("group", group);
  in.read("finish_reason", reasons);
  in.read("tokens", tokens);
  EXPECT_EQ(offsets, (std::vector<int64_t>{0, 2, 5, 7}));
  EXPECT_EQ(group, (std::vector<int64_t>{0, 0, 1}));
  EXPECT_EQ(reasons, (std::vector<int8_t>{0, 1, 0}));
  EXPECT_EQ(tokens, (std::vector<int32_t>{0, 1, 10, 11, 12, 0, 1}));
  EXPECT_EQ(in.integer_attribute("step"), 7u);
  EXPECT_EQ(in.string_attribute("fingerprint"),
            (std::vector<std::string>{"f32-chain/7", "pairs/7"}));
  EXPECT_EQ(in.string_attribute("device"), (std::vector<std::string>{"cpu", "cpu"}));
}

void expect_rejected(const std::filesystem::path& path, const char* part) {
  try {
    read_rollout_file(path);
    FAIL() << path << " was accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(part));
    EXPECT_THAT(error.what(), HasSubstr(path.filename().string()));
  }
}

TEST_F(RolloutFileTest, RejectsOtherFiles) {
  expect_rejected(temporary("absent.h5"), "No such file");
  const auto text = temporary("text.h5");
  std::filesystem::remove(text.string() + ".sha256");  // of an earlier run
  write_file_atomic(text, "not HDF5 at all");
  expect_rejected(text, "checksum");
  write_rollout_checksum(text);
  expect_rejected(text, "not an HDF5 file");
  const auto other = temporary("other.h5");
  storage::Hdf5Writer writer(other);
  writer.attribute("format", std::vector<std::string>{"something else"});
  writer.publish();
  write_rollout_checksum(other);
  expect_rejected(other, "not a rollouts file");
}

/// Opens a good file and lets `spoil` change it through the library.
template <class Spoil>
std::filesystem::path spoiled(const std::filesystem::path& path, Spoil&& spoil) {
  write_rollout_file(path, 7, std::vector<Group>{make_group(4, 10, 2), make_group(4, 11, 1)});
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  spoil(file);
  H5Fclose(file);
  write_rollout_checksum(path);  // so that what lies behind the digest is tested
  return path;
}

TEST_F(RolloutFileTest, FlippedBitsAreFoundBeforeTheFileIsParsed) {
  const auto path = temporary("flips.h5");
  write_rollout_file(path, 7, std::vector<Group>{make_group(4, 10, 2)});
  const std::string good = read_file(path);
  for (size_t at = 0; at < good.size(); at += 97) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 16);
    write_file_atomic(path, bad);
    expect_rejected(path, "is damaged");
  }
}

template <class T>
void overwrite(hid_t file, const char* name, hid_t type, const std::vector<T>& values) {
  const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
  ASSERT_GE(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Dclose(dataset);
}

TEST_F(RolloutFileTest, RejectsInconsistentData) {
  expect_rejected(
      spoiled(temporary("offsets.h5"),
              [](hid_t file) {
                overwrite<int64_t>(file, "token_offsets", H5T_NATIVE_INT64, {0, 2, 1 << 30, 7});
              }),
      "token_offsets must rise");
  expect_rejected(
      spoiled(temporary("negative.h5"),
              [](hid_t file) {
                overwrite<int64_t>(file, "prompt_offsets", H5T_NATIVE_INT64, {0, -4, 6});
              }),
      "prompt_offsets must rise");
  expect_rejected(spoiled(temporary("group.h5"),
                          [](hid_t file) {
                            overwrite<int64_t>(file, "group", H5T_NATIVE_INT64, {0, 9, 1});
                          }),
                  "group[1] is 9");
  expect_rejected(spoiled(temporary("reason.h5"),
                          [](hid_t file) {
                            overwrite<int8_t>(file, "finish_reason", H5T_NATIVE_INT8, {0, 1, 3});
                          }),
                  "finish_reason[2] is 3");
  expect_rejected(
      spoiled(temporary("index.h5"),
              [](hid_t file) {
                overwrite<uint8_t>(file, "fingerprint_index", H5T_NATIVE_UINT8, {0, 2, 0});
              }),
      "fingerprint_index[1] is 2");
  expect_rejected(spoiled(temporary("missing.h5"),
                          [](hid_t file) { H5Ldelete(file, "logprobs", H5P_DEFAULT); }),
                  "logprobs");
  expect_rejected(spoiled(temporary("type.h5"),
                          [](hid_t file) {
                            H5Ldelete(file, "tokens", H5P_DEFAULT);
                            H5Lmove(file, "logprobs", file, "tokens", H5P_DEFAULT, H5P_DEFAULT);
                          }),
                  "another type than int32");
  expect_rejected(spoiled(temporary("huge.h5"),
                          [](hid_t file) {
                            H5Ldelete(file, "rewards", H5P_DEFAULT);
                            const hsize_t count = hsize_t{1} << 50;
                            const hid_t space = H5Screate_simple(1, &count, nullptr);
                            const hid_t dataset = H5Dcreate2(file, "rewards", H5T_IEEE_F32LE, space,
                                                             H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
                            H5Dclose(dataset);
                            H5Sclose(space);
                          }),
                  "more than the file can hold");
}

/// A file as older programs wrote it, of two prompts with two samples and one; `more`
/// may add to it.
std::filesystem::path format_1(const std::filesystem::path& path,
                               const std::function<void(storage::Hdf5Writer&)>& more = {},
                               uint32_t version = 1, const std::string& fingerprint = "cpu/7/f32") {
  storage::Hdf5Writer out(path);
  out.attribute("format", std::vector<std::string>{"orrery-rollouts"});
  out.attribute("format_version", version);
  out.attribute("step", uint64_t{7});
  out.attribute("fingerprint", std::vector<std::string>{fingerprint});
  out.write("group", std::vector<int64_t>{0, 0, 1});
  out.write("prompt_offsets", std::vector<int64_t>{0, 1, 3});
  out.write("prompt_tokens", std::vector<int32_t>{5, 6, 7});
  out.write("prompt_index", std::vector<uint64_t>{10, 10, 11});
  out.write("sample_index", std::vector<uint32_t>{0, 1, 0});
  out.write("request_step", std::vector<uint64_t>{6, 6, 6});
  out.write("token_offsets", std::vector<int64_t>{0, 1, 1, 2});
  out.write("tokens", std::vector<int32_t>{8, 9});
  out.write("logprobs", std::vector<float>{-1, -2});
  out.write("entropies", std::vector<float>{1, 1});
  out.write("loss_mask", std::vector<uint8_t>{1, 1});
  out.write("weight_versions", std::vector<uint64_t>{6, 6});
  out.write("rewards", std::vector<float>{0, 0.5f, 1});
  out.write("finish_reason", std::vector<int8_t>{0, 1, 2});
  out.attribute("names", {"stop", "length", "abort"}, "finish_reason");
  out.write("fingerprint_index", std::vector<uint8_t>{0, 0, 0});
  out.write("response_text", std::vector<std::string>{"a", "", "b"});
  out.write("data_source", std::vector<std::string>{"x", "x", "y"});
  if (more) more(out);
  out.publish();
  write_rollout_checksum(path);
  return path;
}

TEST_F(RolloutFileTest, TakesFormat1) {
  const RolloutFile file = read_rollout_file(format_1(temporary("one.h5")));
  EXPECT_EQ(file.step, 7u);
  EXPECT_EQ(file.stage_step, 7u);
  EXPECT_EQ(file.stage, "grpo");
  ASSERT_EQ(file.groups.size(), 2u);
  ASSERT_EQ(file.groups[0].samples.size(), 2u);
  EXPECT_TRUE(file.prompt_texts.empty());
  EXPECT_EQ(file.groups[0].dropped, 0u);
  const Trajectory& sample = file.groups[1].samples[0];
  EXPECT_EQ(sample.prompt_tokens, (std::vector<int32_t>{6, 7}));
  EXPECT_EQ(sample.response_text, "b");
  EXPECT_EQ(sample.reward, 1);
  EXPECT_EQ(sample.truth, "");
  EXPECT_EQ(sample.data_file, "");
  EXPECT_EQ(sample.data_row, 0u);
}

TEST_F(RolloutFileTest, FingerprintsOfOlderFilesAreReadAndEqualWhatTheyNamed) {
  const auto origin = [&](uint32_t version, const std::string& fingerprint,
                          const std::function<void(storage::Hdf5Writer&)>& more = {}) {
    const RolloutFile file =
        read_rollout_file(format_1(temporary("old.h5"), more, version, fingerprint));
    return file.groups[0].samples[0];
  };
  const Fingerprint chain{"f32-chain", 1}, stored{"bf16-storage", 1};
  EXPECT_EQ(origin(1, "cpu/1/f32").fingerprint, chain);
  EXPECT_EQ(origin(2, "cpu/1/f32").fingerprint, chain);
  EXPECT_EQ(origin(2, "cpu/1/bf16").fingerprint, stored);
  EXPECT_EQ(origin(2, "cpu/1/bf16").device, "cpu");
  EXPECT_FALSE(origin(2, "cpu/2/f32").fingerprint == chain);
  EXPECT_EQ(origin(3, "f32-chain/1").fingerprint, chain);
  EXPECT_EQ(origin(3, "f32-chain/1").device, "") << "optional";
  const auto on_debug = [](storage::Hdf5Writer& out) {
    out.attribute("device", std::vector<std::string>{"debug"});
  };
  EXPECT_EQ(origin(3, "bf16-storage/1", on_debug).fingerprint, stored);
  EXPECT_EQ(origin(3, "bf16-storage/1", on_debug).device, "debug");
  EXPECT_EQ(origin(3, "pairs/1").fingerprint, (Fingerprint{"pairs", 1}));
}

TEST_F(RolloutFileTest, WhatOlderProgramsComputedEqualsNothingOfTodays) {
  const Fingerprint f32 = fingerprint_of({}, DType::kF32), bf16 = fingerprint_of({}, DType::kBF16);
  EXPECT_EQ(fingerprint_text(f32), "f32-chain/2");
  EXPECT_EQ(fingerprint_text(bf16), "pairs/1");
  for (const char* text : {"f32-chain/1", "bf16-storage/1", "bf16-storage/2"}) {
    const RolloutFile file = read_rollout_file(format_1(temporary("old.h5"), {}, 3, text));
    const Fingerprint& old = file.groups[0].samples[0].fingerprint;
    EXPECT_EQ(fingerprint_text(old), text);
    EXPECT_FALSE(old == f32);
    EXPECT_FALSE(old == bf16);
    // And it can be written again.
    const auto path = temporary("again.h5");
    write_rollout_file(path, 7, file.groups);
    EXPECT_EQ(storage::Hdf5Reader(path).string_attribute("fingerprint"),
              std::vector<std::string>{text});
    expect_equal(read_rollout_file(path).groups[0], file.groups[0]);
  }
}

TEST_F(RolloutFileTest, RejectsFingerprintsThatItDoesNotKnow) {
  const auto rejected = [&](uint32_t version, const std::string& fingerprint, const char* part) {
    expect_rejected(format_1(temporary("unknown.h5"), {}, version, fingerprint), part);
  };
  rejected(2, "cpu/1", "\"cpu/1\": expected backend/kernel_version/compute_dtype");
  rejected(2, "cpu/1/f64", "expected backend/kernel_version/compute_dtype");
  rejected(2, "cpu/-1/f32", "expected backend/kernel_version/compute_dtype");
  rejected(3, "cpu/1/f32", "\"cpu/1/f32\": expected class/version, with class f32-chain or pairs");
  rejected(3, "f64-chain/1",
           "\"f64-chain/1\": expected class/version, with class f32-chain or pairs");
  rejected(3, "f32-chain/", "expected class/version");
  rejected(3, "f32-chain/99999999999", "expected class/version");
  const auto two_devices = [](storage::Hdf5Writer& out) {
    out.attribute("device", std::vector<std::string>{"cpu", "debug"});
  };
  expect_rejected(format_1(temporary("devices.h5"), two_devices, 3, "f32-chain/1"),
                  "attribute device has 2 entries, 1 expected");
}

TEST_F(RolloutFileTest, DevicesAreKeptApartFromEqualFingerprints) {
  const std::vector<Group> groups = {make_group(4, 10, 4)};
  const auto path = temporary("devices.h5");
  write_rollout_file(path, 7, groups);
  const storage::Hdf5Reader in(path);
  EXPECT_EQ(in.string_attribute("fingerprint"),
            (std::vector<std::string>{"f32-chain/7", "pairs/7", "f32-chain/7", "pairs/7"}));
  EXPECT_EQ(in.string_attribute("device"),
            (std::vector<std::string>{"cpu", "cpu", "debug", "debug"}));
  expect_equal(read_rollout_file(path).groups[0], groups[0]);
}

TEST_F(RolloutFileTest, PassesOverWhatItDoesNotKnowAndTakesAbsentAsAbsent) {
  const RolloutFile file = read_rollout_file(format_1(
      temporary("later.h5"),
      [](storage::Hdf5Writer& out) {
        out.attribute("tool_names", std::vector<std::string>{"calculator", "search"});
        out.attribute("clock", uint64_t{1});
        out.attribute("unit", std::vector<std::string>{"turns"}, "rewards");
        out.write("turns", std::vector<int32_t>{1, 2, 3, 4, 5}, {1, 5});
        out.write("remarks", std::vector<std::string>{"of", "another", "length", "altogether"});
        out.write("truth",
                  std::vector<std::string>{"1", "2", "3"});  // the only new one that is there
      },
      2));
  ASSERT_EQ(file.groups.size(), 2u);
  EXPECT_EQ(file.groups[0].samples[1].truth, "2");
  EXPECT_EQ(file.groups[1].samples[0].truth, "3");
  EXPECT_EQ(file.groups[1].samples[0].data_row, 0u);
  EXPECT_TRUE(file.prompt_texts.empty());
}

TEST_F(RolloutFileTest, RefusesANewerFormatByItsNumber) {
  expect_rejected(format_1(temporary("four.h5"), {}, 4),
                  "format_version is 4, and this program reads 1 to 3");
  expect_rejected(format_1(temporary("zero.h5"), {}, 0), "format_version is 0");
}

TEST_F(RolloutFileTest, RejectsOptionalDataThatDoesNotFit) {
  const auto with = [this](const char* name, const std::function<void(storage::Hdf5Writer&)>& more,
                           const char* part) {
    expect_rejected(format_1(temporary(name), more, 2), part);
  };
  with(
      "truth.h5",
      [](storage::Hdf5Writer& out) { out.write("truth", std::vector<std::string>{"1"}); },
      "truth has 1 entries, 3 expected");
  with(
      "number.h5",
      [](storage::Hdf5Writer& out) {
        out.write("truth", std::vector<float>{1, 2, 3});
      },
      "truth does not hold variable-length strings");
  with(
      "row.h5",
      [](storage::Hdf5Writer& out) {
        out.write("data_row", std::vector<int64_t>{1, 2, 3});
      },
      "another type than uint64");
  with(
      "rows.h5",
      [](storage::Hdf5Writer& out) {
        out.write("data_row", std::vector<uint64_t>{1, 2, 3, 4});
      },
      "data_row has 4 entries");
  with(
      "prompt.h5",
      [](storage::Hdf5Writer& out) {
        out.write("prompt_text", std::vector<std::string>{"", "", ""});
      },
      "prompt_text has 3 entries, 2 expected");
  with(
      "dropped.h5", [](storage::Hdf5Writer& out) { out.write("dropped", std::vector<uint32_t>{}); },
      "dropped has 0 entries");
  with(
      "stage.h5",
      [](storage::Hdf5Writer& out) {
        out.attribute("stage", std::vector<std::string>{"a", "b"});
      },
      "attribute stage is not one string");
}

TEST_F(RolloutFileTest, ACopyWithoutItsDigestIsReadWhereThatIsAskedFor) {
  const auto path = temporary("copy.h5");
  const std::vector<Group> groups = {make_group(4, 10, 2)};
  write_rollout_file(path, 7, groups);
  std::filesystem::remove(rollout_checksum_path(path));
  expect_rejected(path, "its checksum copy.h5.sha256 is missing");
  expect_equal(read_rollout_file(path, MissingChecksum::kReadInChildFirst).groups.at(0), groups[0]);
  write_file_atomic(rollout_checksum_path(path), std::string(64, '0') + "  copy.h5\n");
  EXPECT_THAT(testing_support::error_of(
                  [&] { read_rollout_file(path, MissingChecksum::kReadInChildFirst); }),
              HasSubstr("is damaged"));
}

// The library may crash on these; this process must not.
TEST_F(RolloutFileTest, DamageWithoutADigestIsAnErrorOrHarmless) {
  const auto path = temporary("damaged.h5");
  write_rollout_file(path, 7, std::vector<Group>{make_group(4, 10, 2)});
  const std::string good = read_file(path);
  std::filesystem::remove(rollout_checksum_path(path));
  int errors = 0;
  const auto read = [&](const std::string& bytes) {
    write_file_atomic(path, bytes, Durability::kVisible);
    try {
      read_rollout_file(path, MissingChecksum::kReadInChildFirst);
    } catch (const Error& error) {
      ++errors;
      EXPECT_THAT(error.what(), HasSubstr("damaged.h5"));
    }
  };
  for (size_t at = 0; at < good.size(); at += 61) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0xFF);
    read(bad);
  }
  for (size_t length = 0; length < good.size(); length += 997) read(good.substr(0, length));
  EXPECT_GT(errors, 10);
}

// A thousand texts that are all the same 100 kB of the file would be 100 MB, and so on.
TEST_F(RolloutFileTest, TextsThatShareTheirBytesAreRefused) {
  std::vector<std::string> texts(1000);
  texts[0] = std::string(100'000, 'x');
  const auto path = format_1(
      temporary("shared.h5"), [&](storage::Hdf5Writer& out) { out.write("truth", texts); }, 2);
  haddr_t place = 0;
  {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(file, "truth", H5P_DEFAULT);
    place = H5Dget_offset(dataset);
    H5Dclose(dataset);
    H5Fclose(file);
  }
  std::string bytes = read_file(path);
  constexpr size_t kElement = 16;  // length, and where the bytes are
  ASSERT_LE(place + texts.size() * kElement, bytes.size());
  for (size_t i = 1; i < texts.size(); ++i)
    bytes.replace(place + i * kElement, kElement, bytes, place, kElement);
  write_file_atomic(path, bytes);
  write_rollout_checksum(path);
  expect_rejected(path, "truth claims more text than the file can hold");
}

// Truncated at every length: an error, or (past the last byte that matters) the same
// samples; never a crash.
TEST_F(RolloutFileTest, RejectsTruncatedFiles) {
  const auto whole = temporary("whole.h5");
  write_rollout_file(whole, 7, std::vector<Group>{make_group(4, 10, 2)});
  const std::string bytes = read_file(whole);
  const auto path = temporary("truncated.h5");
  for (size_t length = 0; length < bytes.size(); length += 97) {
    write_file_atomic(path, std::string_view(bytes).substr(0, length));
    EXPECT_THROW(read_rollout_file(path), Error) << length << " of " << bytes.size() << " bytes";
  }
}

TEST_F(RolloutFileTest, NamesThePathThatCannotBeWritten) {
  const auto path = temporary("no_such_folder") / "step.h5";
  try {
    write_rollout_file(path, 1, {});
    FAIL() << "written";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no_such_folder"));
  }
}

}  // namespace
}  // namespace orrery::rollout
