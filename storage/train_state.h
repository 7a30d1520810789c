// Where a training run stands, besides weights and moments: the `state` of a
// checkpoint's manifest.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace orrery::storage {

/// Where a run stands. The data cursor follows from the steps; random streams are
/// functions of the seed.
struct TrainState {
  int64_t sft_step = 0;                         ///< SFT steps done
  int64_t rl_step = 0;                          ///< RL steps done
  int64_t adam_t = 0;                           ///< optimizer steps since the stage began
  std::optional<double> val_before, val_after;  ///< held-out score before and after RL
  double reward = 0;                            ///< mean reward of the last step
  /// The number of last steps in a row that taught nothing, because their gradient was
  /// not finite or came from a dead policy.
  int64_t skipped_steps = 0;
  /// The largest weight when the stage began, against which divergence is judged. None
  /// in an older checkpoint.
  std::optional<double> start_largest;
  /// A stop cut short the validation that is due after the last step, so it comes first
  /// when the run goes on.
  bool validation_due = false;

  /// The one step number of a run, in file names, metrics and messages: SFT and RL
  /// steps done.
  int64_t step() const { return sft_step + rl_step; }
  /// The stage that the last step belongs to, and how many steps of it are done.
  const char* stage() const { return rl_step > 0 ? "grpo" : "sft"; }
  int64_t stage_step() const { return rl_step > 0 ? rl_step : sft_step; }
};

/// "step 606 (grpo 6)": how a step is named to people.
std::string step_text(const TrainState& state);

std::string state_to_json(const TrainState& state);

/// `where` names the value in errors. Error when the value is not what state_to_json
/// writes.
TrainState state_from_json(const nlohmann::json& value, const std::string& where);

}  // namespace orrery::storage
