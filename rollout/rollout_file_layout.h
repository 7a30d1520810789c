// Names and numbers that the writer and the reader of rollout files share
// (rollout/rollout_file.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rollout/trajectory.h"

namespace orrery::rollout::layout {

inline constexpr const char* kFormat = "orrery-rollouts";
inline constexpr uint32_t kFormatVersion = 3;
inline constexpr FinishReason kFinishReasons[] = {FinishReason::kStop, FinishReason::kLength,
                                                  FinishReason::kAbort};

/// The file's columns in memory.
struct Columns {
  std::vector<int64_t> group, prompt_offsets{0}, token_offsets{0};
  std::vector<int32_t> prompt_tokens, tokens;
  std::vector<uint64_t> prompt_index, request_step, weight_versions, data_row;
  std::vector<uint32_t> sample_index, dropped;
  std::vector<float> logprobs, entropies, rewards;
  std::vector<double> reward_extra;
  std::vector<uint8_t> loss_mask, fingerprint_index;
  std::vector<int8_t> finish_reason;
  std::vector<std::string> response_text, data_source, truth, data_file, prompt_text, fingerprints,
      devices, reward_extra_names;
};

}  // namespace orrery::rollout::layout
