// An actor: takes prompts as it has room, samples a group of episodes for each, and hands finished groups
// over.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/environment.h"
#include "actors/prompt_source.h"
#include "rollout/engine.h"

namespace orrery {

/// Where an actor's prompts come from and its groups go. Calls do not block.
class LeaseSource {
 public:
  virtual ~LeaseSource() = default;
  /// A prompt index to work on; nothing when none is to be had just now.
  virtual std::optional<uint64_t> try_lease() = 0;
  /// No lease will ever come again.
  virtual bool exhausted() = 0;
  virtual void deliver(Group group) = 0;
  /// The job was asked to stop: what is in hand is dropped, and nothing more is delivered.
  virtual bool stopping() { return false; }
  /// Called between engine steps, whether or not a lease is wanted: a source may serve other ranks here.
  virtual void poll() {}
};

struct ActorConfig {
  Split split = Split::kTrain;
  uint64_t seed = 0;
  uint32_t n = 1;
  SamplingParams sampling;
  int64_t max_response_length = 256;  ///< tokens, observations included
  std::vector<int32_t> stop_token_ids;
  std::vector<std::string> stop_strings;
  int64_t max_groups = 0;  ///< groups in work at once; 0: as many as fill the engine
};

class Actor {
 public:
  /// Everything must outlive the actor.
  Actor(Engine& engine, const Tokenizer& tokenizer, const Environment& env, const PromptSource& source,
        ActorConfig config);

  /// Works until `leases` is exhausted and everything taken is delivered, or until it is stopping. `step`:
  /// number of the batch, part of the samples' random streams. Error when an environment fails or yields a
  /// reward, or a part of one, that is not finite (names source, prompt and sample).
  void run(uint64_t step, LeaseSource& leases);

  double reward_seconds() const { return reward_seconds_; }

 private:
  struct Sample {
    std::unique_ptr<Episode> episode;
    Trajectory trajectory;
  };
  struct Work {
    std::vector<Sample> samples;
    size_t unfinished = 0;
  };

  void start(uint64_t step, uint64_t prompt_index);
  void submit(const Sample& sample, uint32_t n);
  /// Appends a finished turn; true when the sample is complete.
  bool finish_turn(Sample& sample, GenerateResult&& turn);

  Engine& engine_;
  const Tokenizer& tokenizer_;
  const Environment& env_;
  const PromptSource& source_;
  ActorConfig config_;
  std::map<uint64_t, Work> work_;  // by prompt index
  double reward_seconds_ = 0;
};

/// Prompts [begin, end) for one actor alone: evaluation and single-process use.
class LocalLeases : public LeaseSource {
 public:
  LocalLeases(uint64_t begin, uint64_t end) : next_(begin), end_(end) {}
  std::optional<uint64_t> try_lease() override {
    return next_ < end_ ? std::optional(next_++) : std::nullopt;
  }
  bool exhausted() override { return next_ == end_; }
  void deliver(Group group) override { groups_.push_back(std::move(group)); }
  /// Delivered groups by prompt index.
  std::vector<Group> take();

 private:
  uint64_t next_, end_;
  std::vector<Group> groups_;
};

}  // namespace orrery
