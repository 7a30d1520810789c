// The reference is a module of the job, frozen, with the policy's weights.
#include "experiments/reference.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "tests/support/scratch.h"
#include "tests/support/weights.h"

namespace orrery::experiments {
namespace {

using testing_support::weights_of;

std::unique_ptr<Job> job_of(const proto::Config& config, comm::Communicator& comm) {
  return make_job(config, comm, {}, training_prompts(config), nullptr);
}

TEST(Reference, IsAFrozenModuleOfTheJob) {
  const testing_support::ScratchFolder scratch;
  const auto comm = comm::make_local_communicator();
  const auto config_with = [&](const std::string& coefficient) {
    const std::vector<std::string> overrides = {
        "cluster.threads=1", "actor.kl_loss_coef=" + coefficient,
        "device=" + device_name(testing_support::test_device()),
        "run_dir=" + (scratch.path() / "run").string()};
    return config::load_config(ORRERY_SOURCE_DIR "/experiments/quickstart.yaml", overrides);
  };
  const proto::Config without = config_with("0"), with = config_with("0.1");
  const auto plain = job_of(without, *comm), job = job_of(with, *comm);
  keep_reference(*plain);
  EXPECT_EQ(plain->modules.reference, nullptr);
  EXPECT_EQ(job->model().table().module(), models::kPolicy);

  load_reference(*job, /*after_sft=*/true, {});  // which is yet to be trained
  EXPECT_EQ(job->modules.reference, nullptr);
  keep_reference(*job);
  const models::Transformer* const reference = job->modules.reference.get();
  ASSERT_NE(reference, nullptr);
  EXPECT_EQ(reference->table().module(), models::kReference);
  EXPECT_FALSE(reference->is_stale());
  const std::vector<float> weights = weights_of(job->ctx, job->model());
  EXPECT_EQ(weights_of(job->ctx, *reference), weights);
  keep_reference(*job);  // it has one
  EXPECT_EQ(job->modules.reference.get(), reference);

  // What was kept is what a run that goes on in RL loads.
  const auto resumed = job_of(with, *comm);
  std::filesystem::create_directories(scratch.path() / "run" / "checkpoints" / "step_000001");
  storage::TrainState state;
  state.rl_step = 1;
  load_reference(*resumed, /*after_sft=*/true, state);
  ASSERT_NE(resumed->modules.reference, nullptr);
  EXPECT_EQ(resumed->modules.reference->table().module(), models::kReference);
  EXPECT_EQ(weights_of(job->ctx, *resumed->modules.reference), weights);
}

}  // namespace
}  // namespace orrery::experiments
