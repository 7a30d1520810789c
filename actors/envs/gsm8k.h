// Word problems with a numeric answer, from JSONL rows in GSM8K's layout (question, answer ending in "####
// number") or verl's (prompt: text or chat messages; data_source; reward_model.ground_truth).
//
// The response's answer is what stands after its last "####", else in its last \boxed{...}, else its last
// number; both sides are normalised (envs/text.h). Reward 1 when they are equal, else 0.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "actors/environment.h"

namespace orrery {

std::unique_ptr<Environment> make_gsm8k(const proto::DataSection& data);

/// The answer of a response, normalised; `marked`: it stood behind #### or in \boxed{}.
struct ExtractedAnswer {
  std::string value;
  bool marked = false;
};
std::optional<ExtractedAnswer> extract_answer(std::string_view response);

}  // namespace orrery
