// Decides whether a job that ended is started again. Pure: knows no clock and no
// process.
#pragma once

#include <cstdint>
#include <string>

namespace orrery::launch {

struct RestartOptions {
  int max_restarts = 10;  ///< in a row without a new checkpoint
  double backoff = 1.0;  ///< seconds before the first restart; each one without progress doubles it
};

class RestartPolicy {
 public:
  explicit RestartPolicy(const RestartOptions& options) : options_(options) {}

  struct Outcome {
    int exit_code = 0;
    /// The reason that the job gave for its failure. Empty when the cause came from
    /// outside (a killed rank, a lost host), which may well not happen again.
    std::string error;
    int64_t published = 0;  ///< step of the newest good checkpoint (0: none); a new one is progress
    int64_t step = 0;       ///< the last step that the ranks reported, up to a second old
    bool seen = true;       ///< false when mpirun ended without any sign of a rank
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
  /// The same error so many times in a row, without a new checkpoint, is the end.
  static constexpr int kSameFailures = 3;

 private:
  const RestartOptions options_;
  int64_t published_ = -1;
  int restarts_ = 0;
  std::string last_error_;
  int same_failures_ = 0;
};

/// The text with every number, size and id masked, because those differ from one
/// attempt to the next.
std::string mask_numbers(const std::string& text);

}  // namespace orrery::launch
