// What is being generated. A request becomes one SequenceGroup with n samples, each of
// them a Sequence, and one more Sequence that computes the prompt's keys and values for
// all samples. Plain state: the scheduler changes places in queues and blocks, the
// engine changes tokens.
//
// The states of a group's prompt:
//   kQueued     the prompt's Sequence waits in the queue
//   kComputing  the prompt's Sequence is running, in chunks
//   kHeld       the group owns the prompt's blocks; its samples wait in the queue, each
//               to be forked from these blocks, or are running
//   kGone       at most one sample is left, and it is running and owns all its blocks
// A prompt goes through them in this order, and back to kQueued when the blocks that it
// needs are taken away (rollout/scheduler.h).
#pragma once

#include <cstdint>
#include <iterator>
#include <optional>
#include <vector>

#include "rollout/block_manager.h"
#include "rollout/request.h"
#include "rollout/stop.h"
#include "rollout/trajectory.h"

namespace orrery::rollout {

enum class SequenceState : uint8_t {
  kParked,   ///< in no queue: a sample whose group's prompt is not held
  kWaiting,  ///< in the scheduler's queue
  kRunning,  ///< owns blocks and is given rows
  kFinished,
};

struct SequenceGroup;

struct Sequence {
  static constexpr int64_t kPrompt = -1;  ///< `sample` of the sequence that computes the prompt

  SequenceGroup* group = nullptr;
  int64_t sample = kPrompt;  ///< place in the group
  uint64_t id = 0;           ///< smaller is older: served earlier and preempted later
  SequenceState state = SequenceState::kParked;
  int64_t computed = 0;  ///< so many tokens, from the first on, have keys and values in the cache
  BlockTable blocks;

  std::vector<int32_t> tokens;  ///< response so far
  std::vector<float> logprobs, entropies;
  std::vector<uint64_t> weight_versions;
  FinishReason finish_reason = FinishReason::kStop;
  bool ends_in_stop_id = false;
  std::optional<StopMatcher> stop_matcher;  ///< when the request has stop strings

  bool is_prompt() const { return sample == kPrompt; }
  inline int64_t total_tokens() const;  ///< prompt and response so far
  inline int32_t token_at(int64_t position) const;
};

enum class PromptState : uint8_t { kQueued, kComputing, kHeld, kGone };

struct SequenceGroup {
  GenerateRequest request;
  StopStrings stop_strings;
  /// The most response tokens: max_new_tokens, or less where the context ends before.
  int64_t max_tokens = 0;
  Sequence prompt;
  std::vector<Sequence> samples;

  PromptState prompt_state = PromptState::kQueued;
  BlockTable prompt_blocks;         ///< while kHeld: all blocks of the prompt, one reference each
  bool first_tokens_drawn = false;  ///< then a prompt that is computed again draws nothing
  int64_t unfinished = 0;           ///< samples that are not finished
  int64_t running = 0;              ///< samples that are running
  int64_t delivered = 0;            ///< samples whose results were handed out

  int64_t prompt_tokens() const { return std::ssize(request.prompt); }
};

inline int64_t Sequence::total_tokens() const {
  return group->prompt_tokens() + std::ssize(tokens);
}

inline int32_t Sequence::token_at(int64_t position) const {
  const int64_t prompt_tokens = group->prompt_tokens();
  return position < prompt_tokens ? group->request.prompt[position]
                                  : tokens[position - prompt_tokens];
}

}  // namespace orrery::rollout
