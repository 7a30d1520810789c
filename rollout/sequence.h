// What is being generated: a request becomes one SequenceGroup with n samples, each a
// Sequence, and one more Sequence that computes the prompt's keys and values for all of
// them. Plain state, changed by the scheduler (places in queues, blocks) and the engine
// (tokens).
//
// Life of a group:
//   prompt kQueued -> kComputing (its Sequence is running, in chunks) -> kHeld: the group owns the prompt's
//   blocks and its samples are in the queue, each to be forked from them -> kGone when no more than one
//   sample is left and that one is running, owning all its blocks. Back to kQueued when the blocks are taken
//   away (rollout/scheduler.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "rollout/engine.h"
#include "rollout/stop.h"
#include "rollout/trajectory.h"
#include "text/tokenizer.h"

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
  uint64_t id = 0;           ///< age: smaller is older, first served and last preempted
  SequenceState state = SequenceState::kParked;
  int64_t computed = 0;  ///< tokens, from the first on, whose keys and values are in the cache
  std::vector<int32_t> blocks;  ///< block table

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
  int64_t max_tokens =
      0;  ///< response tokens at most: max_new_tokens, or less at the context limit
  Sequence prompt;
  std::vector<Sequence> samples;

  PromptState prompt_state = PromptState::kQueued;
  std::vector<int32_t>
      prompt_blocks;                ///< while kHeld: all blocks of the prompt, one reference each
  bool first_tokens_drawn = false;  ///< a prompt computed again draws nothing
  int64_t unfinished = 0;           ///< samples
  int64_t running = 0;              ///< samples
  int64_t delivered = 0;            ///< samples whose results were handed out

  int64_t prompt_tokens() const { return static_cast<int64_t>(request.prompt.size()); }
};

inline int64_t Sequence::total_tokens() const {
  return group->prompt_tokens() + static_cast<int64_t>(tokens.size());
}

inline int32_t Sequence::token_at(int64_t position) const {
  const int64_t prompt_tokens = group->prompt_tokens();
  return position < prompt_tokens ? group->request.prompt[static_cast<size_t>(position)]
                                  : tokens[static_cast<size_t>(position - prompt_tokens)];
}

}  // namespace orrery::rollout
