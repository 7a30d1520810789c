// When a policy is beyond repair. Weights that are not finite, or so large that
// activations overflow or every softmax is sure of one token, stay so: training on
// changes nothing, a restart neither. Such a run ends with an exit code of its own, and
// nothing is saved of the policy any more, so that the checkpoints from before stay.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "comm/communicator.h"
#include "core/context.h"
#include "learners/learner.h"

namespace orrery::experiments {

/// Steps in a row that taught nothing: a run of them does not recover.
inline constexpr int64_t kMaxSkippedSteps = 5;

/// The largest weight that a sound policy can have after so many optimizer steps of a
/// stage that began with `start_largest`: 3 times as much (or 3), and 0.1 times as much
/// more for each, at most 1000 times. AdamW moves a weight by about its learning rate a
/// step, so that no rate up to 0.1 comes near it.
double largest_sound_weight(double start_largest, int64_t updates);

/// Says what is wrong when these are the largest weight and the largest moment, or
/// returns an empty text. `limit`: the largest weight that is sound.
std::string state_problem(double weight, double moment, double limit);

/// Whether a step's gradient says that the policy is dead: exactly 0 where there was
/// something to learn and the policy is not sure already of every token (its
/// probabilities then have a gradient). That happens once activations have overflowed
/// and a normalisation has made zeros of them. `signal`: there is an advantage, or an
/// SFT loss, that is not 0.
bool is_dead_gradient(double grad_norm, double entropy, bool signal);

/// What the policy is tried on: a sample of the last step.
struct PolicyProbe {
  std::span<const int32_t> prompt, response;
  std::span<const uint8_t> loss_mask;
  float temperature = 1;
};

/// Looks for divergence of a learner's policy. Not thread-safe.
class DivergenceCheck {
 public:
  /// `weights`: the model's. `start_largest`: the largest of them when the stage began.
  /// Everything must outlive the check.
  DivergenceCheck(const Context& ctx, comm::Communicator& learners, Vec<const float> weights,
                  learners::Learner& learner, double start_largest);

  /// A stage begins with the weights as they are, which are sound. Returns the largest.
  double begin_stage();

  /// Says what is wrong with the weights and moments ("its weights are not finite"), or
  /// returns an empty text. Without a probe the policy is not tried. Collective over
  /// the learners, with the same result on all. Reads everything a checkpoint holds
  /// once, and computes one sample's log-probs. Changes no training state.
  std::string problem(const std::optional<PolicyProbe>& probe) const;

 private:
  const Context& ctx_;
  comm::Communicator& learners_;
  Vec<const float> weights_;
  learners::Learner& learner_;
  double start_largest_;
};

/// Says why a run ends after so many steps in a row that taught nothing, in a stage of
/// `total` steps, or returns an empty text when it goes on. `dead`: the last step's
/// gradient was that of a dead policy; otherwise it was not finite.
std::string skipped_steps_problem(int64_t skipped_steps, int64_t total, bool dead = false);

/// Collective: the text of the lowest rank that has one.
std::string text_of_lowest_rank(comm::Communicator& comm, const std::string& mine);

/// Throws the AgreedError that a diverged run ends with, alike on every rank. `where`:
/// "step 606 (grpo 6)".
[[noreturn]] void end_diverged(const std::string& where, const std::string& problem,
                               const std::string& rate_key, bool resumes = true);

}  // namespace orrery::experiments
