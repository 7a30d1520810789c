// Samples for people: what a run keeps of them in rollouts/, and a sample as one JSON
// object.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "experiments/job.h"
#include "rollout/trajectory.h"
#include "storage/train_state.h"

namespace orrery::experiments {

/// The prompt of each group as the model saw it, special tokens included; empty for a
/// group without samples.
std::vector<std::string> prompt_texts(std::span<const rollout::Group> groups,
                                      const text::Tokenizer& tokenizer);

/// Writes rollouts/step_*.h5 (`stage` is kRlStage) or val_step_*.h5 (kValidationStage)
/// of the run's folder. What cannot be written is told, and training goes on. Rank 0.
void keep_rollouts(const Job& job, const storage::TrainState& state, const char* stage,
                   std::span<const rollout::Group> groups);

/// Of a sample what a person wants to know: prompt, response, truth, reward and its
/// parts, finish reason, data row and place in the data order. What is not known is
/// null. `prompt_text` may be null too.
nlohmann::ordered_json sample_to_json(const rollout::Trajectory& sample,
                                      const std::string* prompt_text);

/// One line, without its end: UTF-8 whatever the texts are, and nothing in it drives a
/// terminal.
std::string json_line(const nlohmann::ordered_json& object);

/// As reward part "correct" says; where there is none, a reward of 1 or more is right.
bool is_correct(const rollout::Trajectory& sample);

}  // namespace orrery::experiments
