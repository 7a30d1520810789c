// The scheduler with a pretended model: keys are replaced by the number of the token
// they would hold, so that the test sees whether every sequence finds its own tokens in
// its blocks, whatever was shared, copied, preempted or reused.
#include "rollout/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "core/rng.h"

namespace orrery::rollout {
namespace {

struct Limits {
  int64_t max_num_seqs, max_num_batched_tokens, kv_blocks;
};

struct Request {
  int64_t prompt_tokens, max_tokens, samples;
};

class PretendedEngine {
 public:
  explicit PretendedEngine(Limits limits)
      : limits_(limits),
        scheduler_(limits.max_num_seqs, limits.max_num_batched_tokens, limits.kv_blocks),
        slots_(static_cast<size_t>(limits.kv_blocks * models::KvCache::block_tokens()), 0) {}

  void submit(Request request) {
    ASSERT_LE(Scheduler::min_blocks(request.prompt_tokens, request.max_tokens, request.samples),
              limits_.kv_blocks);
    auto group = std::make_unique<SequenceGroup>();
    group->request.prompt_index = groups_.size();
    group->request.prompt.resize(static_cast<size_t>(request.prompt_tokens));
    for (size_t i = 0; i < group->request.prompt.size(); ++i)
      group->request.prompt[i] = next_token();
    group->max_tokens = request.max_tokens;
    group->prompt.group = group.get();
    group->samples.resize(static_cast<size_t>(request.samples));
    for (size_t i = 0; i < group->samples.size(); ++i) {
      group->samples[i].group = group.get();
      group->samples[i].sample = static_cast<int64_t>(i);
    }
    scheduler_.submit(group.get());
    groups_.push_back(std::move(group));
  }

  /// One step: computes the rows, "draws" tokens, checks everything on the way.
  void step() {
    const Schedule& schedule = scheduler_.schedule();
    ASSERT_GE(schedule.rows, 1);
    ASSERT_LE(schedule.rows, limits_.max_num_batched_tokens);
    ASSERT_LE(scheduler_.running_samples(), limits_.max_num_seqs);
    for (const BlockCopy& copy : schedule.copies) {
      for (int64_t i = 0; i < copy.count; ++i) slot(copy.to, i) = slot(copy.from, i);
    }
    int64_t rows = 0;
    for (const ScheduledRows& entry : schedule.entries) {
      const Sequence& s = *entry.sequence;
      rows += entry.rows;
      prefill_rows_ += s.tokens.empty() ? entry.rows : 0;
      for (int64_t p = s.computed; p < s.computed + entry.rows; ++p) slot_of(s, p) = s.token_at(p);
    }
    ASSERT_EQ(rows, schedule.rows);
    for (const ScheduledRows& entry :
         schedule.entries) {  // after all writes: nobody overwrote another's
      for (int64_t p = 0; p < entry.sequence->computed + entry.rows; ++p) {
        ASSERT_EQ(slot_of(*entry.sequence, p), entry.sequence->token_at(p))
            << "group " << entry.sequence->group->request.prompt_index << " sample "
            << entry.sequence->sample << " position " << p;
      }
    }
    const std::vector<ScheduledRows> entries = schedule.entries;
    for (const ScheduledRows& entry : entries) Scheduler::mark_computed(entry);
    for (const ScheduledRows& entry : entries) postprocess(entry);
    ++steps_;
  }

  void run() {
    while (scheduler_.has_work() && !testing::Test::HasFatalFailure()) step();
  }

  void expect_all_done() const {
    for (const auto& group : groups_) {
      for (const Sequence& sample : group->samples) {
        EXPECT_EQ(static_cast<int64_t>(sample.tokens.size()), group->max_tokens);
        EXPECT_EQ(sample.state, SequenceState::kFinished);
      }
    }
    EXPECT_FALSE(scheduler_.has_work());
    EXPECT_EQ(scheduler_.blocks().free_blocks(), limits_.kv_blocks) << "a block leaked";
    EXPECT_EQ(scheduler_.running_samples(), 0);
  }

  Scheduler& scheduler() { return scheduler_; }
  int64_t steps() const { return steps_; }
  int64_t prefill_rows() const { return prefill_rows_; }
  const std::vector<std::pair<uint64_t, int64_t>>& finished() const { return finished_; }

 private:
  void postprocess(const ScheduledRows& entry) {
    Sequence& s = *entry.sequence;
    SequenceGroup& group = *s.group;
    ASSERT_EQ(entry.wants_logits,
              s.computed == s.total_tokens() && !(s.is_prompt() && group.first_tokens_drawn));
    if (!s.is_prompt()) {
      if (entry.wants_logits) draw(s);
      return;
    }
    if (s.computed < group.prompt_tokens()) return;
    if (entry.wants_logits) {
      for (Sequence& sample : group.samples) draw(sample);
      group.first_tokens_drawn = true;
    }
    scheduler_.prompt_computed(&group);
  }

  void draw(Sequence& sample) {
    sample.tokens.push_back(next_token());
    if (static_cast<int64_t>(sample.tokens.size()) < sample.group->max_tokens) return;
    scheduler_.finish(&sample);
    finished_.emplace_back(sample.group->request.prompt_index, sample.sample);
  }

  int32_t& slot(int32_t block, int64_t index) {
    return slots_[static_cast<size_t>(
        static_cast<int64_t>(block) * models::KvCache::block_tokens() + index)];
  }
  int32_t& slot_of(const Sequence& s, int64_t position) {
    return slot(s.blocks[position / models::KvCache::block_tokens()],
                position % models::KvCache::block_tokens());
  }
  int32_t next_token() { return ++token_; }

  Limits limits_;
  Scheduler scheduler_;
  std::vector<int32_t> slots_;
  std::vector<std::unique_ptr<SequenceGroup>> groups_;
  std::vector<std::pair<uint64_t, int64_t>> finished_;
  int32_t token_ = 0;
  int64_t steps_ = 0, prefill_rows_ = 0;
};

TEST(Scheduler, ComputesAGroupsPromptOnce) {
  for (const int64_t prompt : {1, 31, 32, 33, 100}) {
    PretendedEngine engine({16, 64, 200});
    engine.submit({prompt, 5, 8});
    engine.run();
    engine.expect_all_done();
    EXPECT_EQ(engine.prefill_rows(), prompt);
    EXPECT_EQ(engine.steps(),
              (prompt + 63) / 64 + 4);  // the prompt's last step draws the first token
  }
}

TEST(Scheduler, KeepsSharingWhenSamplesWaitForASlot) {
  PretendedEngine engine({3, 64, 200});
  engine.submit({50, 7, 10});
  engine.run();
  engine.expect_all_done();
  EXPECT_EQ(engine.prefill_rows(), 50);
  EXPECT_EQ(engine.scheduler().preemptions(), 0);
}

TEST(Scheduler, MixesPrefillChunksWithDecodes) {
  PretendedEngine engine({8, 16, 100});
  engine.submit({4, 50, 2});
  engine.step();
  engine.step();
  engine.submit({100, 2, 1});
  const Schedule& schedule = engine.scheduler().schedule();
  ASSERT_EQ(schedule.entries.size(), 3u);
  EXPECT_EQ(schedule.entries[0].rows, 1);
  EXPECT_EQ(schedule.entries[1].rows, 1);
  EXPECT_EQ(schedule.entries[2].rows, 14);
  EXPECT_FALSE(schedule.entries[2].wants_logits);
}

TEST(Scheduler, FinishesEqualRequestsInTheOrderTheyCame) {
  for (const int64_t budget : {1, 3, 8, 1000}) {
    PretendedEngine engine({4, budget, 64});
    for (int i = 0; i < 20; ++i) engine.submit({10, 6, 1});
    engine.run();
    engine.expect_all_done();
    ASSERT_EQ(engine.finished().size(), 20u);
    EXPECT_TRUE(std::ranges::is_sorted(engine.finished())) << "budget " << budget;
  }
}

TEST(Scheduler, PreemptsTheNewestAndLosesNothing) {
  // Two sequences of 3 blocks in a cache of 4: both start, one must give way.
  PretendedEngine engine({2, 64, 4});
  engine.submit({20, 70, 1});
  engine.submit({20, 70, 1});
  engine.run();
  engine.expect_all_done();
  EXPECT_GE(engine.scheduler().preemptions(), 1);
  ASSERT_EQ(engine.finished().size(), 2u);
  EXPECT_EQ(engine.finished()[0].first, 0u);
}

TEST(Scheduler, MakesProgressInTheSmallestCache) {
  for (const int64_t prompt : {1, 20, 32, 45, 64, 70}) {
    for (const int64_t samples : {1, 2, 5}) {
      const int64_t tokens = 60;
      PretendedEngine engine({8, 16, Scheduler::min_blocks(prompt, tokens, samples)});
      for (int i = 0; i < 4; ++i) engine.submit({prompt, tokens, samples});
      engine.run();
      engine.expect_all_done();
    }
  }
}

TEST(Scheduler, SurvivesRandomLoads) {
  Philox random(11, RngPurpose::kTest);
  int64_t preemptions = 0;
  for (int round = 0; round < 300; ++round) {
    const Limits limits{1 + random.below(12), 1 + random.below(round % 2 == 0 ? 12 : 200),
                        3 + random.below(20)};
    PretendedEngine engine(limits);
    for (uint32_t left = 1 + random.below(12); left > 0;) {
      const Request request{1 + random.below(100), 1 + random.below(80), 1 + random.below(6)};
      if (Scheduler::min_blocks(request.prompt_tokens, request.max_tokens, request.samples) >
          limits.kv_blocks)
        continue;
      engine.submit(request);
      --left;
      for (uint32_t steps = random.below(30); steps > 0 && engine.scheduler().has_work(); --steps) {
        engine.step();
        if (HasFatalFailure()) FAIL() << "round " << round;
      }
    }
    engine.run();
    if (HasFatalFailure()) FAIL() << "round " << round;
    engine.expect_all_done();
    preemptions += engine.scheduler().preemptions();
  }
  EXPECT_GT(preemptions, 100) << "the loads are too light to test preemption";
}

TEST(Scheduler, ForgetsEverythingOnClear) {
  PretendedEngine engine({4, 16, 32});
  for (int i = 0; i < 5; ++i) engine.submit({40, 20, 3});
  for (int i = 0; i < 12; ++i) engine.step();
  EXPECT_GT(engine.scheduler().blocks().blocks_in_use(), 0);
  engine.scheduler().clear();
  EXPECT_FALSE(engine.scheduler().has_work());
  EXPECT_EQ(engine.scheduler().blocks().blocks_in_use(), 0);
}

}  // namespace
}  // namespace orrery::rollout
