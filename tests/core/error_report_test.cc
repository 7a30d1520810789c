#include "core/error_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <new>
#include <string>
#include <system_error>

#include "core/file.h"
#include "tests/support/scratch.h"

namespace orrery {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

/// What a throwing overload of std::filesystem makes of `path`.
ErrorReport of_path(const fs::path& path) {
  try {
    (void)fs::exists(path);
    (void)fs::is_directory(path);
    fs::create_directories(path);
  } catch (const std::exception& error) {
    return describe_error(error);
  }
  return {"nothing was thrown", kExitOk, false};
}

TEST(ErrorReport, PathsThatTheSystemRefuses) {
  const testing_support::ScratchFolder scratch;
  fs::create_directories(scratch.path());
  const fs::path loop = scratch.path() / "loop", file = scratch.path() / "file";
  fs::create_symlink(loop, loop);
  write_file_atomic(file, "x");
  for (const auto& [path, advice] :
       {std::pair<fs::path, const char*>{loop, "lead in a circle"},
        {loop / "x", "lead in a circle"},
        {scratch.path() / std::string(300, 'x'), "give a shorter path"},
        {file / "x", "a file stands where a folder is needed"}}) {
    const ErrorReport error = of_path(path);
    EXPECT_THAT(error.text, HasSubstr(path.string())) << error.text;
    EXPECT_THAT(error.text, HasSubstr(advice));
    EXPECT_THAT(error.text, Not(HasSubstr("filesystem error")));
    EXPECT_EQ(error.exit_code, kExitUsage);
    EXPECT_FALSE(error.unexpected);
  }
  EXPECT_EQ(of_path("/proc/no-such-place/x").exit_code, kExitFailure)
      << "it may be there next time";
}

TEST(ErrorReport, WhatLibrariesThrow) {
  for (const ErrorReport& error :
       {describe_error(std::bad_alloc()), describe_error(std::length_error("vector"))}) {
    EXPECT_THAT(error.text, HasSubstr("out of memory"));
    EXPECT_FALSE(error.unexpected);
  }
  const std::system_error no_thread(
      std::make_error_code(std::errc::resource_unavailable_try_again));
  EXPECT_THAT(describe_error(no_thread).text, HasSubstr("ulimit -u"));
  const ErrorReport other =
      describe_error(std::runtime_error("[json.exception.type_error.302] type must be x"));
  EXPECT_EQ(other.text, "internal error: type must be x; please report this");
  EXPECT_TRUE(other.unexpected);
}

TEST(ErrorReport, OnlyWhatNobodyMeantIsUnexpected) {
  const auto unexpected = [](auto&& work) {
    try {
      work();
    } catch (const std::exception& error) {
      return describe_error(error).unexpected;
    }
    ADD_FAILURE() << "nothing was thrown";
    return false;
  };
  EXPECT_TRUE(unexpected([] { ORRERY_CHECK(1 > 2, "never"); }));
  EXPECT_TRUE(unexpected([] { fail("rank 1 got a damaged message"); }));
  EXPECT_FALSE(unexpected([] { fail_usage("a bad config"); }));
  EXPECT_FALSE(unexpected([] { fail_user_error("the reward is nan"); }));
  EXPECT_FALSE(unexpected([] { (void)read_file("/no/such/file"); }));
  EXPECT_FALSE(unexpected([] { write_file_atomic("/no/such/folder/file", ""); }));
  EXPECT_FALSE(unexpected([] { throw Error("diverged", 3); }));
}

}  // namespace
}  // namespace orrery
