#include "experiments/checkpointing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_checkpoint.h"

namespace orrery::experiments {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing_support::checkpoint_info;
using testing_support::rewrite_manifest;
using testing_support::save_tiny_checkpoint;
using testing_support::tiny_checkpoint_config;

class UsableCheckpoint : public testing::Test {
 protected:
  UsableCheckpoint() : scratch_("orrery_usable_") {
    for (const int64_t step : {1, 2, 3, 4})
      save_tiny_checkpoint(folder_, checkpoint_info(step, tiny_checkpoint_config()));
  }

  fs::path at(int64_t step) const { return folder_ / storage::checkpoint_name(step); }

  /// Intact, but of another version.
  void make_older(int64_t step, int version = 1) const {
    std::string text = read_file(at(step) / storage::kManifestFile);
    const std::string now = "\"format_version\": 3";
    text.replace(text.find(now), now.size(), fmt::format("\"format_version\": {}", version));
    rewrite_manifest(at(step), text);
  }

  const testing_support::ScratchPath scratch_;
  const fs::path& folder_ = scratch_.path();
};

TEST_F(UsableCheckpoint, IsTheNewestGoodOne) {
  EXPECT_EQ(newest_usable_checkpoint(folder_, ""), at(4));
  fs::resize_file(at(4) / storage::rank_file_name(0, 1), 100);
  make_older(3);
  EXPECT_EQ(newest_usable_checkpoint(folder_, ""), at(2));
}

TEST_F(UsableCheckpoint, NoneAtAllIsNoErrorButNoneThatCanBeUsedIs) {
  EXPECT_EQ(newest_usable_checkpoint(folder_ / "nowhere", ""), fs::path());
  fs::create_directories(folder_ / "empty" / "step_000009.tmp-save");
  EXPECT_EQ(newest_usable_checkpoint(folder_ / "empty", ""), fs::path());

  fs::remove(at(1) / storage::kManifestFile);
  fs::resize_file(at(2) / storage::rank_file_name(0, 1), 100);
  make_older(3);
  make_older(4);
  try {
    newest_usable_checkpoint(folder_, "move them away");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr(fmt::format("none of the 4 checkpoint(s) in {} can be used",
                                            folder_.string())),
                      HasSubstr("step_000004 is of format version 1; this program reads version 3"),
                      HasSubstr("100 bytes"), Not(HasSubstr("step_000001")),
                      HasSubstr("; move them away")));
    EXPECT_THAT(error.what(), AllOf(Not(HasSubstr("damaged")), Not(HasSubstr("\n"))));
  }
}

TEST_F(UsableCheckpoint, ThoseOfTheVersionBeforeAreToldOnceWithTheCommand) {
  for (const int64_t step : {1, 2, 3, 4}) make_older(step, 2);
  try {
    newest_usable_checkpoint(folder_, "move them away");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("step_000004 is of format version 2"),
                      HasSubstr("convert it with orrery ckpt convert "), Not(HasSubstr("\n"))));
  }
}

TEST(OtherModules, AreRefusedByAJobThatWouldDropThem) {
  const storage::StoredModule policy{"policy", true, {}}, critic{"critic", true, {}};
  const std::vector<storage::StoredModule> both = {policy, critic};
  const std::vector<std::string> names = {"policy", "critic"};
  refuse_other_modules("run/step_000001", {&policy, 1}, {names.data(), 1});
  refuse_other_modules("run/step_000001", both, names);
  try {
    refuse_other_modules("run/step_000001", both, {names.data(), 1});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("run/step_000001 has the module critic, which this job "
                                "does not have"),
                      HasSubstr("orrery ckpt export run/step_000001 MODEL")));
  }
}

}  // namespace
}  // namespace orrery::experiments
