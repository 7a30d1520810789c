// When a job that ended is started again. Pure: no clock, no process.
#pragma once

#include <cstdint>
#include <string>

namespace orrery {

struct RestartOptions {
  int max_restarts = 10;  ///< in a row without progress
  double backoff = 1.0;   ///< seconds before the first restart; doubled by each one without progress
};

class RestartPolicy {
 public:
  explicit RestartPolicy(const RestartOptions& options) : options_(options) {}

  struct Outcome {
    int exit_code = 0;
    /// What the job said it failed of. Empty when what ended it came from outside (a killed rank, a lost
    /// host): that may well not happen again.
    std::string error;
    int64_t step = 0;  ///< the furthest step known to be done: by the checkpoints or the ranks' last status
  };
  struct Decision {
    bool restart = false;
    double wait_seconds = 0;
    int restarts = 0;    ///< in a row without progress, this one included
    int exit_code = 0;   ///< when it is the end
    std::string reason;  ///< why it is the end; empty when all is well
  };
  Decision after(const Outcome& outcome);

  static constexpr double kMaxBackoff = 60;
  static constexpr int kSameFailures = 3;  ///< the same error at the same step this often is the end

 private:
  const RestartOptions options_;
  int64_t furthest_ = -1;
  int restarts_ = 0;
  std::string last_error_;
  int64_t last_step_ = -1;
  int same_failures_ = 0;
};

}  // namespace orrery
