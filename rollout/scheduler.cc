#include "rollout/scheduler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/error.h"

// Invariants, by number; the code refers to them. They hold between the public calls.
//   1. waiting_ and running_ rise in id. A sequence is in waiting_ exactly when it is
//      kWaiting, and then it owns no blocks. It is in running_ exactly when it is
//      kRunning, and then its table holds at least its computed tokens.
//   2. While a prompt is kQueued or kComputing, no sample of its group is running, and
//      all unfinished ones are kParked. While it is kHeld, they are waiting or running.
//      While it is kGone, at most one is left, and it is running.
//   3. group.running counts the group's samples in running_, running_samples_ those of
//      all groups, and reserved_slots_ the unfinished samples of the prompts in
//      running_. running_samples_ is at most max_num_seqs_.
//   4. Rows that were given are not taken back: only the newest running sequence is
//      preempted, and within schedule() it has not been given rows yet.
//   5. Rows are written only to blocks that no other table holds.
//   6. A newcomer is admitted beside others only when it leaves blocks for what they
//      will take in their next few steps. Otherwise a preemption would soon follow.
namespace orrery::rollout {
namespace {

bool is_older(const Sequence* a, const Sequence* b) { return a->id < b->id; }

}  // namespace

Scheduler::Scheduler(int64_t max_num_seqs, int64_t max_num_batched_tokens, int64_t kv_blocks)
    : max_num_seqs_(max_num_seqs),
      max_num_batched_tokens_(max_num_batched_tokens),
      blocks_(kv_blocks) {
  ORRERY_CHECK(max_num_seqs >= 1 && max_num_batched_tokens >= 1, "{} sequences, {} tokens a step",
               max_num_seqs, max_num_batched_tokens);
  // A sequence takes at least one row when it is admitted, so prompts and samples
  // together stay below this number.
  running_.reserve(max_num_seqs + 64);
  schedule_.entries.reserve(running_.capacity());
  schedule_.copies.reserve(running_.capacity());
}

int64_t Scheduler::min_blocks(int64_t prompt_tokens, int64_t max_tokens, int64_t samples) {
  // The token that is drawn last is never an input.
  const int64_t longest = BlockManager::blocks_for(prompt_tokens + max_tokens - 1);
  return longest + (samples > 1 && prompt_tokens % models::KvCache::block_tokens() != 0 ? 1 : 0);
}

void Scheduler::submit(SequenceGroup* group) {
  ORRERY_CHECK(!group->samples.empty() && group->max_tokens >= 1,
               "a group without samples or tokens");
  group->prompt.id = next_id_++;
  for (Sequence& sample : group->samples) sample.id = next_id_++;
  group->unfinished = std::ssize(group->samples);
  queue_prompt(*group);
}

const Schedule& Scheduler::schedule() {
  schedule_.entries.clear();
  schedule_.copies.clear();
  schedule_.rows = 0;
  bool preempted = false;

  for (size_t i = 0; i < running_.size() && schedule_.rows < max_num_batched_tokens_; ++i) {
    Sequence& sequence = *running_[i];
    const int64_t budget = max_num_batched_tokens_ - schedule_.rows;
    const int64_t rows = std::min(sequence.total_tokens() - sequence.computed, budget);
    while (i < running_.size() && !blocks_.can_append(sequence.blocks, sequence.computed + rows)) {
      if (reclaim_prompt_blocks(sequence.group)) continue;
      ORRERY_CHECK(running_.size() > 1, "prompt {} does not fit the KV cache alone",
                   sequence.group->request.prompt_index);
      preempt_newest();  // 4
      preempted = true;
    }
    if (i == running_.size()) break;  // this sequence was the newest and is preempted
    blocks_.may_append(sequence.blocks, sequence.computed + rows);
    add_rows(sequence, rows);
  }

  while (!preempted && !waiting_.empty() && schedule_.rows < max_num_batched_tokens_) {
    Sequence& sequence = *waiting_.front();
    if (!admit(sequence)) break;
    const int64_t budget = max_num_batched_tokens_ - schedule_.rows;
    add_rows(sequence, std::min(sequence.total_tokens() - sequence.computed, budget));
  }
  ORRERY_CHECK(schedule_.rows > 0 || !has_work(), "nothing could be scheduled");
  return schedule_;
}

void Scheduler::add_rows(Sequence& sequence, int64_t rows) {
  ORRERY_CHECK(rows >= 1, "sequence {} has no token to compute", sequence.id);
  const int64_t end = sequence.computed + rows;
  const int64_t block_tokens = models::KvCache::block_tokens();
  for (int64_t block = sequence.computed / block_tokens; block * block_tokens < end; ++block) {
    const int32_t id = sequence.blocks[block];
    ORRERY_CHECK(blocks_.reference_count(id) == 1,
                 "sequence {} would write block {}, which is shared", sequence.id, id);  // 5
  }
  const bool complete = end == sequence.total_tokens();
  const bool wants_logits =
      complete && !(sequence.is_prompt() && sequence.group->first_tokens_drawn);
  schedule_.entries.push_back({&sequence, rows, wants_logits});
  schedule_.rows += rows;
}

bool Scheduler::admit(Sequence& sequence) {
  if (!(sequence.is_prompt() ? admit_prompt(sequence) : admit_sample(sequence))) return false;
  ORRERY_CHECK(waiting_.front() == &sequence, "admission out of order");
  waiting_.pop_front();
  sequence.state = SequenceState::kRunning;
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, is_older),
                  &sequence);
  return true;
}

bool Scheduler::admit_prompt(Sequence& prompt) {
  SequenceGroup& group = *prompt.group;
  const int64_t free_slots = max_num_seqs_ - running_samples_ - reserved_slots_;  // 3
  if (free_slots <= 0) return false;
  // Each of its samples will want a block as soon as the prompt is computed.
  const int64_t needed = BlockManager::blocks_for(group.prompt_tokens());
  if (!reserve(needed, std::min(group.unfinished, free_slots), &group)) return false;
  blocks_.allocate(prompt.blocks, needed);
  group.prompt_state = PromptState::kComputing;
  reserved_slots_ += group.unfinished;
  return true;
}

bool Scheduler::admit_sample(Sequence& sample) {
  SequenceGroup& group = *sample.group;
  ORRERY_CHECK(group.prompt_state == PromptState::kHeld, "a sample waits without its prompt");
  if (running_samples_ >= max_num_seqs_) return false;
  const int64_t prompt_tokens = group.prompt_tokens();
  sample.blocks.reserve(BlockManager::blocks_for(prompt_tokens + group.max_tokens));
  const int64_t total_blocks = BlockManager::blocks_for(sample.total_tokens());
  const bool last = group.unfinished == 1;
  const int64_t inherited =
      last ? group.prompt_blocks.size() : prompt_tokens / models::KvCache::block_tokens();
  if (!reserve(total_blocks - inherited, 0, &group)) return false;
  if (last) {  // nobody else will need the prompt: no copy
    sample.blocks.append(group.prompt_blocks);
    group.prompt_blocks.clear();
    release_prompt_blocks(group, PromptState::kGone);
  } else if (const auto copy = blocks_.fork(sample.blocks, group.prompt_blocks, prompt_tokens)) {
    schedule_.copies.push_back(*copy);
  }
  blocks_.may_append(sample.blocks, sample.total_tokens());
  sample.computed = prompt_tokens;
  ++group.running;
  ++running_samples_;
  return true;
}

/// Whether `needed` blocks are free for a newcomer. While others run, it must leave
/// `spare` blocks and what the running sequences will take in their next few steps (6).
/// When nothing runs, it may take back prompts of other groups.
bool Scheduler::reserve(int64_t needed, int64_t spare, const SequenceGroup* requester) {
  if (!running_.empty()) {
    const int64_t soon = (std::ssize(running_) + 7) / 8;
    return blocks_.can_allocate(needed + spare + soon);
  }
  while (!blocks_.can_allocate(needed)) {
    const bool reclaimed = reclaim_prompt_blocks(requester);
    ORRERY_CHECK(reclaimed, "{} blocks wanted by the only sequence, {} of {} free", needed,
                 blocks_.free_blocks(), blocks_.blocks());
  }
  return true;
}

/// Takes back the prompt blocks of the newest group that has no sample running; false
/// when there is no such group.
bool Scheduler::reclaim_prompt_blocks(const SequenceGroup* requester) {
  SequenceGroup* newest = nullptr;
  for (SequenceGroup* group : held_) {
    if (group == requester || group->running > 0) continue;
    if (newest == nullptr || group->prompt.id > newest->prompt.id) newest = group;
  }
  if (newest == nullptr) return false;
  std::erase_if(waiting_, [&](const Sequence* sequence) { return sequence->group == newest; });
  for (Sequence& sample : newest->samples) {
    if (sample.state == SequenceState::kWaiting) sample.state = SequenceState::kParked;  // 2
  }
  release_prompt_blocks(*newest, PromptState::kQueued);
  queue_prompt(*newest);
  return true;
}

void Scheduler::preempt_newest() {
  Sequence& sequence = *running_.back();
  SequenceGroup& group = *sequence.group;
  stop_running(sequence);
  sequence.computed = 0;
  ++preemptions_;
  if (sequence.is_prompt() || group.prompt_state == PromptState::kGone) {
    sequence.state = SequenceState::kParked;
    queue_prompt(group);
  } else {
    enqueue(sequence);
  }
}

void Scheduler::prompt_computed(SequenceGroup* group) {
  Sequence& prompt = group->prompt;
  ORRERY_CHECK(
      group->prompt_state == PromptState::kComputing && prompt.computed == group->prompt_tokens(),
      "prompt {} is not computed", group->request.prompt_index);
  std::swap(group->prompt_blocks, prompt.blocks);
  stop_running(prompt);
  prompt.state = SequenceState::kFinished;
  group->prompt_state = PromptState::kHeld;
  held_.push_back(group);
  if (group->unfinished == 0) release_prompt_blocks(*group, PromptState::kGone);
  for (Sequence& sample : group->samples) {
    if (sample.state == SequenceState::kParked) enqueue(sample);
  }
}

void Scheduler::finish(Sequence* sample) {
  SequenceGroup& group = *sample->group;
  if (sample->state == SequenceState::kRunning) {
    stop_running(*sample);
  } else {
    ORRERY_CHECK(
        sample->state == SequenceState::kParked && group.prompt_state == PromptState::kComputing,
        "sample {} cannot finish where it is", sample->id);
    --reserved_slots_;
  }
  sample->state = SequenceState::kFinished;
  --group.unfinished;
  // A last sample that is running owns all the blocks that it needs (2).
  if (group.prompt_state == PromptState::kHeld && group.unfinished <= 1 &&
      group.unfinished == group.running) {
    release_prompt_blocks(group, PromptState::kGone);
  }
}

void Scheduler::clear() {
  for (Sequence* sequence : running_) blocks_.release(sequence->blocks);
  for (SequenceGroup* group : held_) blocks_.release(group->prompt_blocks);
  running_.clear();
  waiting_.clear();
  held_.clear();
  running_samples_ = reserved_slots_ = 0;
}

/// Frees the blocks of a running sequence and takes it out of running_.
void Scheduler::stop_running(Sequence& sequence) {
  blocks_.release(sequence.blocks);
  const auto place = std::lower_bound(running_.begin(), running_.end(), &sequence, is_older);
  ORRERY_CHECK(place != running_.end() && *place == &sequence, "sequence {} is not running",
               sequence.id);
  running_.erase(place);
  if (sequence.is_prompt()) {
    reserved_slots_ -= sequence.group->unfinished;
  } else {
    --sequence.group->running;
    --running_samples_;
  }
}

void Scheduler::release_prompt_blocks(SequenceGroup& group, PromptState next) {
  blocks_.release(group.prompt_blocks);
  std::erase(held_, &group);
  group.prompt_state = next;
}

void Scheduler::enqueue(Sequence& sequence) {
  sequence.state = SequenceState::kWaiting;
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), &sequence, is_older),
                  &sequence);
}

void Scheduler::queue_prompt(SequenceGroup& group) {
  group.prompt.computed = 0;
  group.prompt_state = PromptState::kQueued;
  enqueue(group.prompt);
}

}  // namespace orrery::rollout
