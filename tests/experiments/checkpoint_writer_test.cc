#include "experiments/checkpoint_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/fault.h"
#include "experiments/on_all_ranks.h"
#include "rollout/rollout_file.h"
#include "tests/support/device_values.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_config.h"

namespace orrery::experiments {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_support::tiny_checkpoint_config;

class CheckpointWriterTest : public testing::Test {
 protected:
  CheckpointWriterTest()
      : scratch_("orrery_checkpoint_writer_"),
        config_(tiny_checkpoint_config()),
        table_(config_),
        values_(ctx_, std::vector<float>(static_cast<size_t>(table_.flat_size()))),
        comm_(comm::make_local_communicator()) {}
  ~CheckpointWriterTest() override { arm_faults(""); }

  CheckpointWriter::Target target() const {
    return {folder_, {}, {{table_, {{0, table_.flat_size()}}}}, 2, {}};
  }
  void start(CheckpointWriter& writer, int64_t step) {
    fill(static_cast<float>(step));
    const storage::CheckpointInfo info = testing_support::checkpoint_info(step, config_);
    const CheckpointWriter::Values values{values_.vec(), values_.vec(), values_.vec()};
    writer.start(ctx_, info, {&values, 1});
    fill(-1.0f);  // as the next step does
  }
  void fill(float value) {
    values_.set(std::vector<float>(static_cast<size_t>(table_.flat_size()), value));
  }
  /// The step of the newest good checkpoint, which holds what start() was given.
  int64_t newest() const {
    const auto found =
        storage::latest_good_checkpoint(folder_, [](const fs::path&, const std::string&) {});
    if (!found) return -1;
    std::vector<float> w(static_cast<size_t>(table_.flat_size())), m(w), v(w);
    found->read(models::kPolicy.name, table_.slices(), w, m, v);
    for (auto* values : {&w, &m, &v}) {
      for (const models::Parameter& p : table_.parameters())
        EXPECT_THAT(std::span<float>(table_.values(Span<float>(*values), p)),
                    testing::Each(static_cast<float>(found->info().step)));
    }
    return found->info().step;
  }

  const testing_support::ScratchPath scratch_;
  const fs::path& folder_ = scratch_.path();
  models::ModelConfig config_;
  models::ParameterTable table_;
  Context ctx_ = testing_support::test_context();
  testing_support::DeviceFloats values_;
  std::unique_ptr<comm::Communicator> comm_;
};

TEST_F(CheckpointWriterTest, SavesWhatWasThereWhenItWasStarted) {
  CheckpointWriter writer(*comm_, target());
  EXPECT_EQ(writer.wait(), 0);
  arm_faults("checkpoint.write:slow");  // at least 100 ms
  start(writer, 1);
  EXPECT_TRUE(writer.busy());
  EXPECT_FALSE(writer.done());
  EXPECT_EQ(newest(), -1);
  EXPECT_GE(writer.wait(), 0.1);
  EXPECT_FALSE(writer.busy());
  arm_faults("");
  EXPECT_EQ(newest(), 1);
  for (int64_t step = 2; step < 5; ++step) {
    start(writer, step);
    writer.wait();
    EXPECT_EQ(newest(), step);
  }
  EXPECT_EQ(storage::list_checkpoints(folder_).size(), 2u);
}

TEST_F(CheckpointWriterTest, SavesEveryModuleOfTheTarget) {
  const models::ParameterTable critic(config_, {"critic", /*trainable=*/true});
  CheckpointWriter::Target both = target();
  both.modules.push_back({critic, {{0, critic.flat_size()}}});
  CheckpointWriter writer(*comm_, both);
  const auto size = static_cast<size_t>(table_.flat_size());
  const testing_support::DeviceFloats one(ctx_, std::vector<float>(size, 1)),
      two(ctx_, std::vector<float>(size, 2));
  const std::vector<CheckpointWriter::Values> values = {{one.vec(), one.vec(), one.vec()},
                                                        {two.vec(), two.vec(), one.vec()}};
  writer.start(ctx_, testing_support::checkpoint_info(3, config_), values);
  writer.wait();
  const storage::Checkpoint saved(folder_ / storage::checkpoint_name(3));
  std::vector<float> w(size), m(w), v(w);
  saved.read("critic", critic.slices(), w, m, v);
  const models::Parameter& norm = *critic.find("model.norm.weight");
  const auto first = [&](std::vector<float>& read) {
    return critic.values(Span<float>(read), norm)[0];
  };
  EXPECT_EQ((std::vector{first(w), first(m), first(v)}), (std::vector<float>{2, 2, 1}));
  EXPECT_EQ(storage::checkpoint_hash(saved),
            storage::checkpoint_hash(3, table_, std::vector<float>(size, 1),
                                     std::vector<float>(size, 1), std::vector<float>(size, 1)));
}

TEST_F(CheckpointWriterTest, AFailedSaveIsToldAndTheNextOneWorks) {
  CheckpointWriter writer(*comm_, target());
  start(writer, 1);
  writer.wait();
  for (const char* fault :
       {"checkpoint.copy:error", "checkpoint.write:enospc@2", "checkpoint.publish:error"}) {
    arm_faults(fault);
    start(writer, 2);
    EXPECT_THROW(writer.wait(), AgreedError) << fault;
    EXPECT_EQ(newest(), 1) << fault;
  }
  arm_faults("");
  start(writer, 3);
  EXPECT_GT(writer.wait(), 0);
  EXPECT_EQ(newest(), 3);
}

TEST_F(CheckpointWriterTest, EndsItsWorkBeforeItGoes) {
  arm_faults("checkpoint.write:slow");
  {
    CheckpointWriter writer(*comm_, target());
    start(writer, 7);
  }
  EXPECT_EQ(newest(), 7);
  try {
    CheckpointWriter writer(*comm_, target());
    start(writer, 8);
    fail("something else went wrong");
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("something else"));
  }
  EXPECT_EQ(newest(), 8);
}

TEST_F(CheckpointWriterTest, RolloutsAreWrittenBesideIt) {
  rollout::Group group{1, 0, {rollout::Trajectory{}}};
  rollout::Trajectory& t = group.samples.front();
  t.prompt_tokens = {1};
  t.tokens = {2, 3};
  t.logprobs = t.entropies = {0.5f, 0.25f};
  t.loss_mask = {1, 1};
  t.weight_versions = {1, 1};
  t.response_text = "text";
  CheckpointWriter writer(*comm_, target());
  fs::create_directories(folder_);
  for (int64_t step = 1; step < 6; ++step) {
    start(writer, step);
    const fs::path path = folder_ / fmt::format("rollouts_{}.h5", step);
    do {
      rollout::write_rollout_file(path, static_cast<uint64_t>(step), std::span(&group, 1));
      EXPECT_EQ(rollout::read_rollout_file(path).groups.size(), 1u);
    } while (!writer.done());
    writer.wait();
    EXPECT_EQ(newest(), step);
  }
}

}  // namespace
}  // namespace orrery::experiments
