#include "experiments/overlong.h"

#include <algorithm>

namespace orrery::experiments {

float overlong_penalty(int64_t tokens, const proto::DataSection& data) {
  const proto::OverlongBufferSection& buffer = data.overlong_buffer();
  if (buffer.len() == 0) return 0;
  const int64_t room = data.max_response_length() - buffer.len();
  const double share = static_cast<double>(room - tokens) / static_cast<double>(buffer.len());
  return static_cast<float>(buffer.penalty_factor() * std::min(0.0, share));
}

bool leaves_loss(const rollout::Trajectory& sample, const proto::ActorSection& actor) {
  return actor.mask_truncated_completions() &&
         sample.finish_reason == rollout::FinishReason::kLength;
}

void shape_rewards(std::span<learners::GroupRewards> rewards,
                   std::span<const rollout::Group> groups, const proto::Config& config) {
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < groups[g].samples.size(); ++i) {
      const rollout::Trajectory& sample = groups[g].samples[i];
      rewards[g].rewards[i] += overlong_penalty(std::ssize(sample.tokens), config.data());
      if (leaves_loss(sample, config.actor())) rewards[g].loss_tokens[i] = 0;
    }
  }
}

}  // namespace orrery::experiments
