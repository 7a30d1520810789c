#include "storage/new_folder.h"

#include <gmock/gmock.h>

#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/scratch.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_support::error_of;

TEST(NewFolder, TheFirstOfTwoIsPublishedAndNothingElseIsLeft) {
  const testing_support::ScratchFolder scratch;
  const fs::path target = scratch.path() / "a" / "new";
  {
    NewFolder first(target), second(target);
    EXPECT_NE(first.temporary(), second.temporary());
    write_file_atomic(first.temporary() / "which", "first");
    second.publish();
    EXPECT_THAT(error_of([&] { first.publish(); }), HasSubstr("stays as it is"));
    EXPECT_FALSE(fs::exists(target / "which")) << "an empty folder is not replaced either";
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(target.parent_path()), {}), 1);
  EXPECT_THAT(error_of([&] { NewFolder again(target); }), HasSubstr("exists; name a new folder"));
}

TEST(NewFolder, WhatAKilledProcessLeftIsNotTouched) {
  const testing_support::ScratchFolder scratch;
  const fs::path left = scratch.path() / "new.tmp-new-1";
  fs::create_directories(left);
  write_file_atomic(left / "half", "x");
  NewFolder made(scratch.path() / "new");
  made.publish();
  EXPECT_TRUE(fs::is_empty(scratch.path() / "new"));
  EXPECT_TRUE(fs::exists(left / "half"));
}

}  // namespace
}  // namespace orrery::storage
