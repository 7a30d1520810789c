// What the engine is asked to generate, and what it answers. Plain values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/sampling.h"
#include "rollout/trajectory.h"

namespace orrery::rollout {

/// One prompt, and how to draw its n samples.
struct GenerateRequest {
  uint64_t seed = 0;
  uint64_t step = 0;
  uint64_t prompt_index = 0;
  uint32_t first_sample = 0;  ///< sample index of the first of the n samples
  uint32_t n = 1;
  std::vector<int32_t> prompt;  ///< at least one token
  /// Response tokens that `prompt` holds already (in a later turn). They offset the
  /// positions at which random numbers are drawn.
  uint32_t generated_before = 0;
  kernels::SamplingParams sampling;
  int64_t max_new_tokens = 16;
  /// Generation ends at one of these ids, which is kept as the last token of the sample
  /// but is no part of its text.
  std::vector<int32_t> stop_token_ids;
  /// Generation ends when the response contains one of these (rollout/stop.h).
  std::vector<std::string> stop_strings;
};

/// One finished sample. The vectors have one entry per token.
struct GenerateResult {
  uint64_t prompt_index = 0;
  uint32_t sample_index = 0;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs, entropies;
  std::vector<uint64_t> weight_versions;
  FinishReason finish_reason = FinishReason::kStop;
  /// The last token is one of stop_token_ids, or the id of a stop string.
  bool ends_in_stop_id = false;

  /// The tokens whose text is the response: all but a stop id.
  std::span<const int32_t> text_tokens() const {
    return std::span(tokens).first(tokens.size() - (ends_in_stop_id ? 1 : 0));
  }
};

}  // namespace orrery::rollout
