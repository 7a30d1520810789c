// When a policy is beyond repair. Weights that are not finite, or so large that activations overflow, stay
// so: training on changes nothing, a restart neither. Such a run ends with an exit code of its own, and
// nothing is saved of the policy any more, so that the checkpoints from before stay.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "comm/communicator.h"
#include "core/context.h"
#include "learners/learner.h"

namespace orrery {

/// Exit code of a run whose policy has diverged, beside those of core/error.h.
inline constexpr int kExitDiverged = 3;

/// Steps in a row whose gradient is not finite: a run of them does not recover.
inline constexpr int64_t kMaxSkippedSteps = 5;

/// The largest absolute value, or infinity when one is not finite; 0 of none.
float largest(const Context& ctx, std::span<const float> values);

/// What the policy is tried on: a sample of the last step.
struct PolicyProbe {
  std::span<const int32_t> prompt, response;
  std::span<const uint8_t> loss_mask;
  float temperature = 1;
};

/// Of a learner's policy. Not thread-safe.
class DivergenceCheck {
 public:
  /// `weights`: the model's, at the start of the run. All must outlive it.
  DivergenceCheck(const Context& ctx, Communicator& learners, std::span<const float> weights,
                  Learner& learner);

  /// What is wrong with the weights and moments ("its weights are not finite"), or empty. Without a probe the
  /// policy is not tried. Collective over the learners, alike on all. Reads everything that a checkpoint
  /// holds once, and computes one sample's log-probs; no training state is changed.
  std::string problem(const std::optional<PolicyProbe>& probe) const;

 private:
  const Context& ctx_;
  Communicator& learners_;
  std::span<const float> weights_;
  Learner& learner_;
  float limit_;
};

/// Why a run with so many skipped steps in a row, in a stage of `total` steps, ends; or empty.
std::string skipped_too_often(int64_t skipped_steps, int64_t total);

/// Collective: the text of the lowest rank that has one.
std::string first_text(Communicator& comm, const std::string& mine);

/// Throws the AgreedError that a diverged run ends with, alike on every rank. `where`: "step 606 (grpo 6)".
[[noreturn]] void end_diverged(const std::string& where, const std::string& problem,
                               const std::string& rate_key);

}  // namespace orrery
