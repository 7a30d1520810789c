#include "launch/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "rollout/rollout_file.h"
#include "tests/support/scratch.h"

namespace orrery::launch {
namespace {

namespace fs = std::filesystem;

TEST(RunFolder, RolloutsOfRolledBackStepsGoAndNothingElse) {
  const testing_support::ScratchPath scratch("orrery_run_folder_");
  const fs::path folder = scratch.path() / "rollouts";
  EXPECT_EQ(remove_rollouts_after(scratch.path(), 3), 0) << "no such folder";
  fs::create_directories(folder);
  EXPECT_EQ(rollout_path(scratch.path(), 12), folder / "step_000012.h5");
  EXPECT_EQ(rollout_path(scratch.path(), 12, /*validation=*/true), folder / "val_step_000012.h5");
  for (const char* name :
       {"step_000003.h5", "step_000003.h5.sha256", "step_000004.h5", "step_000004.h5.sha256",
        "step_1000000.h5", "step_000005.h5.sha256", "step_000009.txt", "step_.h5", "notes.h5",
        "val_step_000002.h5", "val_step_000002.h5.sha256", "val_step_000003.h5",
        "val_step_000004.h5", "val_step_000004.h5.sha256", "val_step_000006.h5",
        "val_step_000007.h5.sha256.tmp", "val_notes.h5", "eval_step_000009.h5"}) {
    write_file_atomic(folder / name, "x");
  }
  const auto left = [&] {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder))
      names.push_back(entry.path().filename().string());
    return names;
  };
  EXPECT_EQ(remove_rollouts_after(scratch.path(), 3), 3) << "steps 4, 6 and a million";
  EXPECT_THAT(left(), testing::UnorderedElementsAre(
                          "step_000003.h5", "step_000003.h5.sha256", "val_step_000002.h5",
                          "val_step_000002.h5.sha256", "val_step_000003.h5", "step_000009.txt",
                          "step_.h5", "notes.h5", "val_notes.h5", "eval_step_000009.h5"));
  EXPECT_EQ(remove_rollouts_after(scratch.path(), -1), 2);
  EXPECT_THAT(left(), testing::UnorderedElementsAre("step_000009.txt", "step_.h5", "notes.h5",
                                                    "val_notes.h5", "eval_step_000009.h5"));
}

TEST(RunFolder, RolloutsAreListedAsTheRunMakesThem) {
  const testing_support::ScratchPath scratch("orrery_run_folder_");
  EXPECT_TRUE(list_rollouts(scratch.path()).empty()) << "no such folder";
  fs::create_directories(scratch.path());
  for (const char* name :
       {"val_step_000010.h5", "step_000010.h5", "step_000010.h5.sha256", "step_000009.h5",
        "step_1000000.h5", "val_step_000006.h5", "step_000007.h5.tmp", "other.h5"}) {
    write_file_atomic(scratch.path() / name, "x");
  }
  std::vector<std::string> names;
  for (const RolloutEntry& entry : list_rollouts(scratch.path())) {
    names.push_back(entry.path.filename().string());
    EXPECT_EQ(entry.validation, names.back().starts_with("val_"));
  }
  EXPECT_THAT(names, testing::ElementsAre("val_step_000006.h5", "step_000009.h5", "step_000010.h5",
                                          "val_step_000010.h5", "step_1000000.h5"));
}

TEST(RunFolder, OlderRolloutsAreNamedByTheRunsStep) {
  const testing_support::ScratchPath scratch("orrery_run_folder_");
  EXPECT_EQ(renumber_older_rollouts(scratch.path(), 3), 0) << "no such folder";
  fs::create_directories(scratch.path() / "rollouts");
  const auto path = [&](int64_t step) { return rollout_path(scratch.path(), step); };
  for (const int64_t step : {1, 2, 4, 7})
    rollout::write_rollout_file(path(step), static_cast<uint64_t>(step), {});
  rollout::write_rollout_file(path(8), 8, {}, 5);  // this program's
  write_file_atomic(path(9), "not one");
  // A validation's, of whatever program: as it is.
  rollout::write_rollout_file(rollout_path(scratch.path(), 3, true), 3, {}, {},
                              {rollout::kValidationStage});
  EXPECT_EQ(renumber_older_rollouts(scratch.path(), 0), 0) << "without SFT both numbers are one";
  for (const int64_t moved : {4, 0}) {  // the second time there is nothing to be done
    EXPECT_EQ(renumber_older_rollouts(scratch.path(), 3), moved);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(scratch.path() / "rollouts"))
      names.push_back(entry.path().filename().string());
    EXPECT_THAT(names,
                testing::UnorderedElementsAre(
                    "step_000004.h5", "step_000004.h5.sha256", "step_000005.h5",
                    "step_000005.h5.sha256", "step_000007.h5", "step_000007.h5.sha256",
                    "step_000008.h5", "step_000008.h5.sha256", "step_000009.h5", "step_000010.h5",
                    "step_000010.h5.sha256", "val_step_000003.h5", "val_step_000003.h5.sha256"));
    for (const auto& [step, stage_step] : {std::pair{4, 1}, {5, 2}, {7, 4}, {8, 5}, {10, 7}}) {
      const rollout::RolloutFile file = rollout::read_rollout_file(path(step));
      EXPECT_EQ(file.step, static_cast<uint64_t>(step));
      EXPECT_EQ(file.stage_step, static_cast<uint64_t>(stage_step));
    }
  }
}

}  // namespace
}  // namespace orrery::launch
