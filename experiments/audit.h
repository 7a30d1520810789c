// Recorded samples against a checkpoint: each token is drawn again and scored again on
// this machine's CPU, in the class of numerics that the file names, and compared to the
// bit. What any device of that class recorded is so confirmed, or not.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "core/context.h"
#include "experiments/model_source.h"
#include "rollout/rollout_file.h"

namespace orrery::experiments {

/// A token that is not what the checkpoint and the recorded sampling give.
struct AuditFinding {
  uint64_t prompt_index = 0;
  uint32_t sample_index = 0;
  int64_t position = 0;  ///< in the response
  std::string what;      ///< "its log-prob is -1.25, recomputed -1.5"
};

struct AuditReport {
  int64_t samples = 0, tokens = 0;  ///< compared
  int64_t not_drawn = 0;            ///< tokens that the environment wrote (loss_mask 0)
  int64_t differing = 0;            ///< tokens of which something differs
  /// By prompt, sample and position.
  std::optional<AuditFinding> first;
  std::string numerics;  ///< the class and its version
};

struct AuditOptions {
  /// At most so many samples, spread evenly over the file; 0: all.
  int64_t samples = 0;
  int threads = 1;
  /// Called after each group with the samples compared so far and those to come.
  std::function<void(int64_t done, int64_t all)> progress;
};

/// `name`: of the file, for messages. Error when the file does not say how its samples
/// were drawn, when none was, when they are of another class version than this
/// program's, or when the checkpoint's weights are not those that the file names: that
/// is told before a token is looked at, and is no finding.
AuditReport audit(const rollout::RolloutFile& file, const std::string& name,
                  const ModelSource& source, const AuditOptions& options);

}  // namespace orrery::experiments
