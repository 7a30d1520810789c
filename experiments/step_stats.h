// What a step of either stage says about itself, in two forms: typed numbers, by which
// the run is steered and which its line on the console shows, and the metrics that are
// written.
#pragma once

#include <cstdint>

#include "experiments/metrics.h"

namespace orrery::experiments {

struct StepStats {
  double loss = 0;
  double lr = 0;
  /// Before clipping. NaN when an update was skipped because something was not finite.
  double grad_norm = 0;
  double entropy = 0;           ///< nats
  int64_t skipped_updates = 0;  ///< that changed nothing, because something was not finite
  /// There was something to learn: an advantage, or an SFT loss, that is not 0.
  bool signal = false;
  double reward = 0;           ///< mean over samples; RL only
  double response_length = 0;  ///< mean tokens of a response; RL only
  double tokens_per_s = 0;     ///< prompt and response tokens, all ranks together
};

/// Filled on learners.
struct StepReport {
  StepStats stats;
  Metrics metrics;
};

}  // namespace orrery::experiments
