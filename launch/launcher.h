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
  /// Seconds without progress until a job is ended and restarted; 0: never. Absent:
  /// cluster.hang_timeout_s.
  std::optional<double> hang_timeout;
  double stop_timeout = 600;  ///< seconds that ranks have for save-and-exit
};

/// Runs the job to its end; returns the exit code. A stop signal (launch/stop_signal.h)
/// to this process: the ranks save and exit, the code is 0; a second SIGTERM, SIGINT or
/// SIGHUP a second later or more ends the job at once (one that comes sooner is the
/// same request: who signals a process group often signals the process too).
/// kExitDiverged when
/// the policy has diverged, which is never restarted. `config` is that of the options,
/// checked for so many ranks. Error when the job cannot be started. run_dir/status.json
/// ends with how the run ended.
int run_launch(const LaunchOptions& options, const proto::Config& config);

}  // namespace orrery::launch
