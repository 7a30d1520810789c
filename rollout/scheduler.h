// Decides which tokens the next forward computes. Iteration-level (continuous) batching
// after Orca (Yu et al., OSDI'22) over paged KV after vLLM (Kwon et al., SOSP'23):
// prefill chunks and decodes share one budget.
//
// The policy, in this order. Age is the order of submission, then of samples. 1.
//   Running sequences get their rows, the oldest first: one row (decode), or what the
//      budget leaves (prefill).
//   2. A sequence that needs a block when none is free takes back the prompt blocks of
//      the newest group that has no sample running. When there is no such group, it
//      preempts the newest running sequence, perhaps itself. A preempted sequence gives
//      up its blocks, and computes prompt and response again when it is admitted again;
//      its tokens, log-probs and entropies stay.
//   3. Unless something was preempted, waiting sequences are admitted, strictly in the
//      order of age, as long as there are a slot (max_num_seqs), budget, and blocks for
//      all their present tokens. A group's prompt is admitted when there is a free slot
//      that no earlier prompt's samples will need.
// Progress: the oldest running sequence is never preempted by another one, and
// min_blocks() says what a group needs when it is alone. Nothing here looks at time or
// at the contents of tokens. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "rollout/block_manager.h"
#include "rollout/sequence.h"

namespace orrery::rollout {

/// Rows of one sequence: tokens [sequence->computed, sequence->computed + rows).
struct ScheduledRows {
  Sequence* sequence = nullptr;
  int64_t rows = 0;
  bool wants_logits = false;  ///< the last row predicts a token to draw
};

struct Schedule {
  std::vector<ScheduledRows> entries;
  std::vector<BlockCopy> copies;  ///< to be made before the forward
  int64_t rows = 0;
};

class Scheduler {
 public:
  Scheduler(int64_t max_num_seqs, int64_t max_num_batched_tokens, int64_t kv_blocks);

  /// Queues a group whose request, max_tokens and samples are set, and gives its
  /// sequences their ids. `group` must live until it is finished.
  void submit(SequenceGroup* group);

  bool has_work() const { return !running_.empty() || !waiting_.empty(); }

  /// The rows of the next forward, valid until the next call. Empty only when there is
  /// no work.
  const Schedule& schedule();

  /// Call it after the forward: the rows of a scheduled item are in the cache.
  static void mark_computed(const ScheduledRows& item) { item.sequence->computed += item.rows; }

  /// Call it when the whole prompt is in the cache, and after finish() for the samples
  /// that ended at their first token.
  void prompt_computed(SequenceGroup* group);

  /// Call it when a sample is done: a running one, or a parked one while its prompt is
  /// running. Frees its blocks.
  void finish(Sequence* sample);

  /// Forgets all groups and frees all blocks.
  void clear();

  /// The blocks that a group needs when it is alone: those of its longest sample, and
  /// the prompt's partly filled block, which the group keeps for samples yet to be
  /// forked.
  static int64_t min_blocks(int64_t prompt_tokens, int64_t max_tokens, int64_t samples);

  const BlockManager& blocks() const { return blocks_; }
  int64_t preemptions() const { return preemptions_; }
  int64_t running_samples() const { return running_samples_; }

 private:
  void add_rows(Sequence& sequence, int64_t rows);
  bool admit(Sequence& sequence);
  bool admit_prompt(Sequence& prompt);
  bool admit_sample(Sequence& sample);
  bool reserve(int64_t needed, int64_t spare, const SequenceGroup* requester);
  bool reclaim_prompt_blocks(const SequenceGroup* requester);
  void preempt_newest();
  void enqueue(Sequence& sequence);
  void queue_prompt(SequenceGroup& group);
  void release_prompt_blocks(SequenceGroup& group, PromptState next);
  void stop_running(Sequence& sequence);

  int64_t max_num_seqs_;
  int64_t max_num_batched_tokens_;
  BlockManager blocks_;
  std::deque<Sequence*> waiting_;     // in the order of ids
  std::vector<Sequence*> running_;    // in the order of ids
  std::vector<SequenceGroup*> held_;  // groups whose prompt is kHeld, in no order
  Schedule schedule_;
  uint64_t next_id_ = 0;
  int64_t running_samples_ = 0;
  int64_t reserved_slots_ = 0;  // unfinished samples of the prompts that are running
  int64_t preemptions_ = 0;
};

}  // namespace orrery::rollout
