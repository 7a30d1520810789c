// What an update minimises and under which conditions.
#pragma once

#include <memory>

#include "learners/loss.h"

namespace orrery::proto {
class Config;
}

namespace orrery::learners {

struct Objective {
  std::shared_ptr<const Loss> loss;
  /// Of the rollout: the policy is softmax(logits / temperature).
  float temperature = 1.0f;
  /// Learner::update refuses a batch in which an exact leaf's log-prob is not
  /// recomputed to the same bits.
  bool verify_logprobs = false;
};

/// RL's, as the config has it.
Objective policy_objective(const proto::Config& config);

/// Imitation of the tokens.
Objective sft_objective();

}  // namespace orrery::learners
