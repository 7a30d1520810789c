// `orrery launch`: the supervisor of a training job. It starts mpirun, restarts the job
// from its last good checkpoint when it crashes or hangs, and passes on the wish to
// save and exit.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "launch/restart_policy.h"
#include "proto/config.pb.h"

namespace orrery::launch {

struct LaunchOptions {
  std::filesystem::path config;
  std::vector<std::string> overrides;
  std::vector<std::string> mpirun_arguments;
  int ranks = 1;
  RestartOptions restart;
  /// Seconds without progress until a job is ended and restarted; 0: never. When
  /// absent, cluster.hang_timeout_s counts.
  std::optional<double> hang_timeout;
  double stop_timeout = 600;  ///< seconds that ranks have for save-and-exit
};

/// Runs the job to its end and returns the exit code. On a stop signal
/// (launch/stop_signal.h) to this process the ranks save and exit, and the code is 0. A
/// second SIGTERM, SIGINT or SIGHUP, a second later or more, ends the job at once. (One
/// that comes sooner is the same request: who signals a process group often signals the
/// process too.) The code is kExitDiverged when the policy has diverged; such a job is
/// never restarted. `config` is the one of the options, checked for so many ranks.
/// Error when the job cannot be started. In the end run_dir/status.json says how the
/// run ended.
int run_launch(const LaunchOptions& options, const proto::Config& config);

}  // namespace orrery::launch
