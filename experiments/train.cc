#include "experiments/train.h"

#include <memory>

#include "comm/watchdog.h"
#include "core/device.h"
#include "core/error.h"
#include "core/flight_recorder.h"
#include "core/log.h"
#include "core/pipes.h"
#include "experiments/config_check.h"
#include "experiments/job.h"
#include "experiments/metrics.h"
#include "experiments/on_all_ranks.h"
#include "experiments/run.h"
#include "experiments/run_status.h"
#include "experiments/train_rl.h"
#include "experiments/train_sft.h"
#include "kernels/numerics.h"
#include "launch/stop_signal.h"
#include "launch/supervision.h"
#include "rollout/fingerprint.h"

namespace orrery::experiments {
namespace {

/// Where this rank computes: "AVX-512", "cuda:0 (NVIDIA H100 80GB HBM3)".
std::string place_of(Device device) {
  const std::string target = kernels::cpu_target_name();
  if (device.type == DeviceType::kCpu) return target;
  return fmt::format("{} ({})", device_name(device),
                     device.type == DeviceType::kCuda ? device_model(device) : target);
}

/// What the job is, once: the supervisor's log has it all from the first attempt.
void describe(const Job& job) {
  if (!job.is_main() || launch::supervised_attempt(job.config.run_dir()) > 1) return;
  spdlog::info("{}", describe_batch(job.config, job.world.size()));
  const double parameters = job.model().table().parameter_count();
  spdlog::info(
      "model {}: {} parameters, {} rank(s) x {} thread(s), {} learner(s), {} actor(s), {} on {}",
      job.config.model().path(), format_count(parameters), job.world.size(), job.ctx.threads,
      job.topology.learners.size(), job.topology.actors(),
      rollout::fingerprint_text(
          rollout::fingerprint_of(job.ctx.device, job.model().compute_dtype())),
      place_of(job.ctx.device));
  if (job.config.cluster().reduce() == proto::ClusterSection::FAST &&
      job.topology.learners.size() > 1) {
    spdlog::warn(
        "cluster.reduce is fast: gradients are added in the order the library that moves them "
        "(MPI, NCCL) picks, so another number of learners, or another library, ends in other "
        "weights (in the last bits at first); 'ordered' gives the same bits on any layout");
  }
}

}  // namespace

int run_training(const proto::Config& config, comm::CommWorld& ranks) {
  comm::Communicator& world = ranks.world();
  launch::install_stop_handlers(/*announce=*/world.rank() == 0);
  ignore_closed_pipes();
  record_event("start of {} rank(s)", world.size());
  RunStatus status(config, ranks);
  try {
    storage::TrainState state;
    bool complete = false;
    on_all_ranks(world, [&] {
      if (world.rank() == 0) status.folder().take(/*make=*/false);
    });
    {
      comm::Watchdog watchdog(world, status.watchdog_options(), status.watchdog_report());
      watchdog.begin_phase("load");
      const std::unique_ptr<Job> job =
          make_job(config, world, ranks.local(), training_prompts(config), &watchdog);
      describe(*job);
      Run run(*job, config::config_to_yaml(config), status.folder());
      complete = train_sft(run) && train_rl(run);
      run.finish(complete);
      state = run.state;
      job->begin_phase("end");
    }
    status.end(state, complete);
  } catch (const std::exception& error) {
    status.fail(error);
    throw;
  }
  return kExitOk;
}

}  // namespace orrery::experiments
