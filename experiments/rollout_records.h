// Samples for people: what a run keeps of them in rollouts/, and a sample as one JSON
// object.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "experiments/job.h"
#include "rollout/draw_record.h"
#include "rollout/trajectory.h"
#include "storage/train_state.h"

namespace orrery::experiments {

/// The prompt of each group as the model saw it, special tokens included; empty for a
/// group without samples.
std::vector<std::string> prompt_texts(std::span<const rollout::Group> groups,
                                      const text::Tokenizer& tokenizer);

/// Writes rollouts/step_*.h5 (`stage` is kRlStage) or val_step_*.h5 (kValidationStage)
/// of the run's folder, on rank 0. When that fails an error is logged and training goes
/// on.
void save_rollouts(const Job& job, const storage::TrainState& state, const char* stage,
                   std::span<const rollout::Group> groups,
                   const std::optional<rollout::DrawRecord>& drawn);

/// What a person wants to know of a sample: prompt, response, truth, reward and its
/// parts, finish reason, data row and place in the data order. Unknown values are null.
/// `prompt_text` may be null.
nlohmann::ordered_json sample_to_json(const rollout::Trajectory& sample,
                                      const std::string* prompt_text);

/// One line, without its end: UTF-8 whatever the texts are, and nothing in it drives a
/// terminal.
std::string json_line(const nlohmann::ordered_json& object);

/// Whether the reward's part "correct" is above one half. Without such a part, whether
/// the reward is at least 1.
bool is_correct(const rollout::Trajectory& sample);

}  // namespace orrery::experiments
