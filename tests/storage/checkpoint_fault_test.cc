// Saves that fail or are cut short: the checkpoint before stays whole, and nothing
// half-made is taken for one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <functional>

#include "core/error.h"
#include "core/fault.h"
#include "storage/checkpoint.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_config.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::checkpoint_info;
using testing_support::error_of;
using testing_support::tiny_checkpoint_config;

class CheckpointFaultTest : public testing::Test {
 protected:
  CheckpointFaultTest()
      : scratch_("orrery_checkpoint_fault_"), config_(tiny_checkpoint_config()), table_(config_) {
    save(1);
  }
  ~CheckpointFaultTest() override { arm_faults(""); }

  /// Weights and moments whose every element tells the step.
  void save(int64_t step) const {
    const std::vector<float> values(static_cast<size_t>(table_.flat_size()),
                                    static_cast<float>(step));
    const CheckpointInfo info = checkpoint_info(step, config_);
    const fs::path temporary = prepare_checkpoint(folder_, step);
    const Extent all{0, table_.flat_size()};
    const auto entry = write_checkpoint_slice(temporary, 0, 1, table_.flat_size(),
                                              {std::span(&all, 1), values, values, values});
    publish_checkpoint(temporary, folder_ / checkpoint_name(step), info, table_, {entry}, {});
    remove_old_checkpoints(folder_, 2);
  }

  /// The step of the newest good checkpoint, whose every digest is right and whose
  /// weights are its own.
  int64_t newest() const {
    rejected_.clear();
    const auto found = latest_good_checkpoint(
        folder_,
        [this](const fs::path& path, const std::string& why) { rejected_ += path.string() + why; });
    if (!found) return -1;
    std::vector<float> weights(static_cast<size_t>(table_.flat_size()));
    found->read(0, table_.flat_size(), weights, {}, {});
    EXPECT_THAT(weights, testing::Each(static_cast<float>(found->info().step)));
    return found->info().step;
  }

  const testing_support::ScratchPath scratch_;
  const fs::path& folder_ = scratch_.path();
  models::ModelConfig config_;
  models::ParameterTable table_;
  mutable std::string rejected_;
};

TEST_F(CheckpointFaultTest, AFullDiskAtAnyPieceLeavesTheOneBefore) {
  for (const char* point : {"checkpoint.write", "file.write"}) {
    int struck = 0;
    for (int visit = 1; visit < 20; ++visit) {
      arm_faults(fmt::format("{}:enospc@{}", point, visit));
      const std::string problem = error_of([&] { save(2); });
      if (problem == "no error") break;
      ++struck;
      EXPECT_THAT(problem, AllOf(HasSubstr("No space left on device"), HasSubstr("untouched")));
      arm_faults("");
      EXPECT_EQ(newest(), 1);
      EXPECT_EQ(rejected_, "");
    }
    EXPECT_GE(struck, 2) << point;
    EXPECT_EQ(newest(), 2);
    fs::remove_all(folder_ / checkpoint_name(2));
  }
}

TEST_F(CheckpointFaultTest, ATornWriteIsNeverPublished) {
  for (const char* fault : {"checkpoint.write:torn", "checkpoint.write:torn@3",
                            "checkpoint.publish:crash", "file.write:torn", "file.write:crash@2"}) {
    arm_faults(fault);
    EXPECT_EXIT(save(2), testing::KilledBySignal(SIGKILL), "injected at");
    arm_faults("");
    EXPECT_EQ(newest(), 1) << fault;
    EXPECT_EQ(rejected_, "") << fault;
  }
  save(2);
  EXPECT_EQ(newest(), 2);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 2)
      << "nothing is left of the others";
}

TEST_F(CheckpointFaultTest, ARemovalCutShortLeavesNoHalfCheckpoint) {
  save(2);
  arm_faults("checkpoint.remove:crash");
  EXPECT_EXIT(save(3), testing::KilledBySignal(SIGKILL), "injected at");
  arm_faults("");
  EXPECT_EQ(newest(), 3);
  EXPECT_EQ(list_checkpoints(folder_).size(), 2u);
  save(4);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 2);
}

TEST_F(CheckpointFaultTest, AWrongBitOnTheDiskIsPassedOver) {
  for (int visit = 1; visit <= 3; ++visit) {
    arm_faults(fmt::format("checkpoint.write:corrupt@{}", visit));
    save(2);
    arm_faults("");
    EXPECT_EQ(newest(), 1) << visit;
    EXPECT_THAT(rejected_, AllOf(HasSubstr("step_000002"), HasSubstr("damaged")));
  }
}

TEST_F(CheckpointFaultTest, ADiskThatReadsWronglyIsTold) {
  const fs::path path = folder_ / checkpoint_name(1);
  arm_faults("checkpoint.read:short-read");
  EXPECT_THAT(error_of([&] { Checkpoint c(path); }),
              AllOf(HasSubstr("rank_0000"), HasSubstr("bytes")));
  arm_faults("checkpoint.read:corrupt");
  EXPECT_THAT(error_of([&] { Checkpoint c(path); }),
              AllOf(HasSubstr("rank_0000"), HasSubstr("damaged")));
  arm_faults("checkpoint.read:corrupt");
  const Checkpoint late(path, Checkpoint::Verify::kOnRead);
  std::vector<float> weights(static_cast<size_t>(table_.flat_size()));
  EXPECT_THAT(error_of([&] { late.read(0, table_.flat_size(), weights, {}, {}); }),
              HasSubstr("damaged"));
  arm_faults("checkpoint.read:error");
  EXPECT_THAT(error_of([&] { Checkpoint c(path); }),
              HasSubstr("error injected at checkpoint.read"));
}

}  // namespace
}  // namespace orrery::storage
