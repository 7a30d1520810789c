// One sample of the policy, and the group of a prompt's samples: what actors make and
// learners consume. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "proto/trajectory.pb.h"
#include "rollout/fingerprint.h"

namespace orrery::rollout {

enum class FinishReason : uint8_t {
  kStop,    ///< a stop token (kept as the last token) or a stop string
  kLength,  ///< max_new_tokens or the context limit
  kAbort,   ///< the environment or the engine gave the sample up
};
const char* finish_reason_name(FinishReason reason);

/// The vectors with one entry per response token all have tokens.size() entries.
struct Trajectory {
  /// The RL step, from 0, in which the sample is drawn: part of its random stream.
  uint64_t step = 0;
  uint64_t prompt_index = 0;  ///< global index of the prompt in the data order
  uint32_t sample_index = 0;  ///< 0 .. n-1 in the group
  std::vector<int32_t> prompt_tokens;
  std::vector<int32_t> tokens;     ///< response
  std::vector<float> logprobs;     ///< under softmax(logits / temperature), untruncated
  std::vector<float> entropies;    ///< nats
  std::vector<uint8_t> loss_mask;  ///< 0 for observation tokens
  /// For each token, the number of steps (SFT and RL) that the weights had behind them.
  std::vector<uint64_t> weight_versions;
  float reward = 0;
  FinishReason finish_reason = FinishReason::kStop;
  std::string data_source;
  Fingerprint fingerprint;
  std::string device = "cpu";  ///< that drew it, for people: nothing compares it
  std::map<std::string, double> reward_extra;
  std::string response_text;
  /// For people: the right answer as the data row has it, the row's file, and its line
  /// there, from 1. Empty and 0 where there is none.
  std::string truth, data_file;
  uint64_t data_row = 0;
};

/// All samples of one prompt, by sample_index.
struct Group {
  uint64_t step = 0;
  uint64_t prompt_index = 0;
  std::vector<Trajectory> samples;
  uint32_t dropped = 0;  ///< samples that are missing, as their environment failed
};

proto::Group group_to_proto(const Group& group);

/// Throws Error naming the field when array lengths differ, or a value is out of range.
Group group_from_proto(const proto::Group& message);

}  // namespace orrery::rollout
