#include "rollout/rollout_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include "core/error.h"
#include "core/file.h"
#include "rollout/hdf5_arrays.h"
#include "tests/rollout/make_group.h"
#include "tests/support/scratch.h"

namespace orrery {
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
  const std::vector<Group> groups = {make_group(4, 10, 3), make_group(5, 11, 1), make_group(4, 2, 4)};
  const auto path = temporary("round_trip.h5");
  write_rollout_file(path, 123, groups);
  const RolloutFile file = read_rollout_file(path);
  EXPECT_EQ(file.step, 123u);
  ASSERT_EQ(file.groups.size(), groups.size());
  for (size_t i = 0; i < groups.size(); ++i) expect_equal(file.groups[i], groups[i]);
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
  const Hdf5Reader in(path);
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
  EXPECT_EQ(in.string_attribute("fingerprint"), (std::vector<std::string>{"cpu/7/f32", "cpu/7/bf16"}));
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
  Hdf5Writer writer(other);
  writer.attribute("format", std::vector<std::string>{"something else"});
  writer.publish();
  write_rollout_checksum(other);
  expect_rejected(other, "not a rollout file");
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
  expect_rejected(spoiled(temporary("offsets.h5"),
                          [](hid_t file) {
                            overwrite<int64_t>(file, "token_offsets", H5T_NATIVE_INT64, {0, 2, 1 << 30, 7});
                          }),
                  "token_offsets must rise");
  expect_rejected(spoiled(temporary("negative.h5"),
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
  expect_rejected(spoiled(temporary("index.h5"),
                          [](hid_t file) {
                            overwrite<uint8_t>(file, "fingerprint_index", H5T_NATIVE_UINT8, {0, 2, 0});
                          }),
                  "fingerprint_index[1] is 2");
  expect_rejected(
      spoiled(temporary("missing.h5"), [](hid_t file) { H5Ldelete(file, "logprobs", H5P_DEFAULT); }),
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

// Truncated at every length: an error, or (past the last byte that matters) the same samples; never a crash.
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
}  // namespace orrery
