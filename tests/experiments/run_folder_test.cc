#include "experiments/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "tests/support/scratch.h"

namespace orrery {
namespace {

namespace fs = std::filesystem;

TEST(RunFolder, RolloutsOfRolledBackStepsGoAndNothingElse) {
  const testing_support::ScratchPath scratch("orrery_run_folder_");
  const fs::path folder = scratch.path() / "rollouts";
  EXPECT_EQ(remove_rollouts_after(scratch.path(), 3), 0) << "no such folder";
  fs::create_directories(folder);
  EXPECT_EQ(rollout_path(scratch.path(), 12), folder / "step_000012.h5");
  for (const char* name :
       {"step_000003.h5", "step_000003.h5.sha256", "step_000004.h5", "step_000004.h5.sha256",
        "step_1000000.h5", "step_000005.h5.sha256", "step_000009.txt", "step_.h5", "notes.h5"}) {
    write_file_atomic(folder / name, "x");
  }
  const auto left = [&] {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder))
      names.push_back(entry.path().filename().string());
    return names;
  };
  EXPECT_EQ(remove_rollouts_after(scratch.path(), 3), 2);
  EXPECT_THAT(left(), testing::UnorderedElementsAre("step_000003.h5", "step_000003.h5.sha256",
                                                    "step_000009.txt", "step_.h5", "notes.h5"));
  EXPECT_EQ(remove_rollouts_after(scratch.path(), -1), 1);
  EXPECT_THAT(left(), testing::UnorderedElementsAre("step_000009.txt", "step_.h5", "notes.h5"));
}

}  // namespace
}  // namespace orrery
