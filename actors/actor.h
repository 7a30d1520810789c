// An actor: takes prompts as it has room, samples a group of episodes for each, and
// hands finished groups over. A sample whose environment takes its time waits beside
// the engine: it holds no place in it, and a group of which all are waiting makes room
// for the next prompt. What comes out does not depend on when answers come.
#pragma once

#include <chrono>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "actors/environment.h"
#include "actors/prompt_source.h"
#include "rollout/engine.h"

namespace orrery::actors {

/// An actor's side of the leases: where its prompts come from and its groups go. Calls
/// do not block.
class LeaseClient {
 public:
  virtual ~LeaseClient() = default;
  /// A prompt index to work on; nothing when none is to be had just now.
  virtual std::optional<uint64_t> try_lease() = 0;
  /// No lease will ever come again.
  virtual bool exhausted() = 0;
  virtual void deliver(rollout::Group group) = 0;
  /// The job was asked to stop: what is in hand is dropped, and nothing more is
  /// delivered.
  virtual bool stopping() { return false; }
  /// Called between engine steps, whether or not a lease is wanted: rank 0 serves the
  /// other ranks here.
  virtual void poll() {}
};

/// How a batch is sampled.
struct ActorConfig {
  Split split = Split::kTrain;
  uint64_t seed = 0;
  uint32_t n = 1;
  uint32_t first_sample = 0;  ///< sample index of the first of the n
  kernels::SamplingParams sampling;
  int64_t max_response_length = 256;  ///< tokens, observations included
  std::vector<int32_t> stop_token_ids;
  std::vector<std::string> stop_strings;
  int64_t max_groups = 0;  ///< groups in the engine at once; 0: as many as fill it
};

/// Lives as long as its engine and serves one batch after the other. Not thread-safe.
class Actor {
 public:
  /// Everything must outlive the actor.
  Actor(rollout::Engine& engine, const text::Tokenizer& tokenizer, const Environment& env,
        const PromptSource& source);

  /// Works until `leases` is exhausted and everything taken is delivered, or until the
  /// job is asked to stop: what is in hand is then dropped. `step`: number of the
  /// batch, part of the samples' random streams. A sample that its environment gives up
  /// is missing from its group, which counts it. Error when an environment fails or
  /// yields a reward, or a part of one, that is not finite (names source, prompt and
  /// sample); what was in hand is then dropped when run() is called again.
  void run(uint64_t step, const ActorConfig& config, LeaseClient& leases);

  /// Seconds that the last run() spent on rewards: in the environment, or waiting for
  /// it with nothing else to do.
  double reward_seconds() const { return reward_seconds_; }

 private:
  enum class SampleState : uint8_t { kEngine, kEnvironment, kDone, kDropped };
  struct OpenSample {
    std::unique_ptr<Episode> episode;
    rollout::Trajectory trajectory;
    SampleState state = SampleState::kEngine;
    std::string text;                  // of the last turn
    std::optional<int32_t> end_token;  // the token that ended it, when it is one for that
  };
  struct OpenGroup {
    std::vector<OpenSample> samples;
    size_t unfinished = 0, in_engine = 0;
  };
  using OpenGroups = std::map<uint64_t, OpenGroup>;  // by prompt index

  int64_t most_groups() const;
  /// By its index in the run, which is not that in the group.
  OpenSample& sample_of(OpenGroup& group, uint32_t sample_index) const;
  /// Tokens that a sample may have yet.
  int64_t room(const rollout::Trajectory& t) const {
    return config_.max_response_length - std::ssize(t.tokens);
  }
  void start(uint64_t prompt_index);
  void submit(const OpenSample& sample, uint32_t n);
  /// A turn has ended: it goes to the environment.
  void finish_turn(OpenGroup& group, OpenSample& sample, rollout::GenerateResult&& turn);
  /// Takes the environment's answer when it is there: the sample is done, dropped or
  /// has its next turn.
  void take_answer(OpenGroup& group, OpenSample& sample);
  /// True when the observation has room, and the sample is back in the engine.
  bool continue_episode(OpenSample& sample, const std::string& observation);
  void leave_engine(OpenGroup& group);
  /// Looks at all samples that wait for the environment.
  void take_waiting_answers(LeaseClient& leases, std::chrono::milliseconds patience);
  void deliver_if_finished(OpenGroups::iterator group, LeaseClient& leases);
  void drop_all();

  rollout::Engine& engine_;
  const text::Tokenizer& tokenizer_;
  const Environment& env_;
  const PromptSource& source_;
  ActorConfig config_;  // of the batch under way, as are the rest
  uint64_t step_ = 0;
  OpenGroups open_groups_;
  int64_t groups_in_engine_ = 0;
  std::set<std::pair<uint64_t, uint32_t>> waiting_;  // for the environment: prompt index and sample
  double reward_seconds_ = 0;
};

/// Prompts [begin, end) for one actor alone: evaluation and single-process use.
class LocalLeases : public LeaseClient {
 public:
  LocalLeases(uint64_t begin, uint64_t end) : next_(begin), end_(end) {}
  std::optional<uint64_t> try_lease() override {
    return next_ < end_ ? std::optional(next_++) : std::nullopt;
  }
  bool exhausted() override { return next_ == end_; }
  void deliver(rollout::Group group) override { groups_.push_back(std::move(group)); }
  /// Delivered groups by prompt index.
  std::vector<rollout::Group> take();

 private:
  uint64_t next_, end_;
  std::vector<rollout::Group> groups_;
};

}  // namespace orrery::actors
