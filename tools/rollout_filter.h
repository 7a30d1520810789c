// Selects the samples that `orrery rollouts` shows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "rollout/rollout_file.h"

namespace orrery::tools {

/// A condition on the reward: "0", "<0.5", ">=1", "!=0".
struct RewardFilter {
  enum class Relation { kEqual, kNotEqual, kBelow, kAtMost, kAbove, kAtLeast };
  Relation relation = Relation::kEqual;
  float value = 0;

  bool matches(float reward) const;
};

/// A step or a range of steps: "600", "600..800", "600..", "..800". Both ends belong to
/// it.
struct StepFilter {
  uint64_t first = 0, last = UINT64_MAX;

  bool matches(uint64_t step) const { return first <= step && step <= last; }
};

/// Reads a condition. Throws a usage Error that names the option when `text` is
/// something else.
RewardFilter parse_reward_filter(const std::string& text);
StepFilter parse_step_filter(const std::string& text);

/// Conditions on a sample. Those that are given must all hold.
struct RolloutFilter {
  std::optional<RewardFilter> reward;
  std::optional<StepFilter> step;
  std::optional<uint64_t> prompt_index;
  std::optional<std::string> grep;   ///< a text inside prompt, response or truth
  std::optional<std::string> stage;  ///< kRlStage or kValidationStage

  bool matches(const rollout::RolloutFile& file) const;
  /// Whether a sample matches, in a file that does. `prompt_text` may be null.
  bool matches(const rollout::Trajectory& sample, const std::string* prompt_text) const;
};

}  // namespace orrery::tools
