#include "actors/actor.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "core/error.h"
#include "core/error_report.h"
#include "core/timer.h"

namespace orrery::actors {
namespace {

constexpr auto kIdleSleep = std::chrono::microseconds(200);
/// With an idle engine, before other ranks and leases have their turn.
constexpr auto kPatience = std::chrono::milliseconds(2);

void check_reward(const rollout::Trajectory& t, const StepResult& result, const std::string& text) {
  const auto check = [&](const std::string& what, double value) {
    if (std::isfinite(value)) return;
    fail_user_error(
        "the {} of {} is {} for prompt {} sample {} (response: \"{:.80}\"); "
        "it must be a finite number: fix the environment or the data row",
        what, t.data_source, value, t.prompt_index, t.sample_index, text);
  };
  check("reward", result.reward);
  for (const auto& [name, value] : result.extra) check("reward part '" + name + "'", value);
}

}  // namespace

Actor::Actor(rollout::Engine& engine, const text::Tokenizer& tokenizer, const Environment& env,
             const PromptSource& source)
    : engine_(engine), tokenizer_(tokenizer), env_(env), source_(source) {}

int64_t Actor::most_groups() const {
  if (config_.max_groups > 0) return config_.max_groups;
  return std::max<int64_t>(1, engine_.max_num_seqs() / config_.n);
}

Actor::OpenSample& Actor::sample_of(OpenGroup& group, uint32_t sample_index) const {
  const uint32_t at = sample_index - config_.first_sample;
  ORRERY_CHECK(at < group.samples.size(), "sample {} is none of {} from {} on", sample_index,
               group.samples.size(), config_.first_sample);
  return group.samples[at];
}

void Actor::run(uint64_t step, const ActorConfig& config, LeaseClient& leases) {
  if (!open_groups_.empty()) drop_all();  // of a run that an error ended
  config_ = config;
  step_ = step;
  reward_seconds_ = 0;
  env_.warm_up();
  const int64_t limit = most_groups();
  while (true) {
    leases.poll();
    if (leases.stopping()) {
      drop_all();
      return;
    }
    while (groups_in_engine_ < limit) {
      const std::optional<uint64_t> prompt_index = leases.try_lease();
      if (!prompt_index) break;
      start(*prompt_index);
    }
    if (!engine_.has_work()) {
      if (!waiting_.empty()) {
        take_waiting_answers(leases, kPatience);
        continue;
      }
      if (open_groups_.empty() && leases.exhausted()) return;
      // Waiting for a lease: leave the core to other ranks.
      std::this_thread::sleep_for(kIdleSleep);
      continue;
    }
    for (rollout::GenerateResult& turn : engine_.step()) {
      const auto it = open_groups_.find(turn.prompt_index);
      ORRERY_CHECK(it != open_groups_.end(),
                   "the engine returned prompt {}, which nobody asked for", turn.prompt_index);
      finish_turn(it->second, sample_of(it->second, turn.sample_index), std::move(turn));
      deliver_if_finished(it, leases);
    }
    if (!waiting_.empty()) take_waiting_answers(leases, std::chrono::milliseconds(0));
  }
}

void Actor::take_waiting_answers(LeaseClient& leases, std::chrono::milliseconds patience) {
  {
    const ScopedTimer timer(reward_seconds_);
    if (!env_.poll(patience)) return;
  }
  for (const auto& [prompt_index, sample_index] : std::vector(waiting_.begin(), waiting_.end())) {
    const auto it = open_groups_.find(prompt_index);
    take_answer(it->second, sample_of(it->second, sample_index));
    deliver_if_finished(it, leases);
  }
}

void Actor::deliver_if_finished(OpenGroups::iterator group, LeaseClient& leases) {
  if (group->second.unfinished > 0) return;
  rollout::Group finished{step_, group->first, {}};
  for (OpenSample& sample : group->second.samples) {
    if (sample.state == SampleState::kDropped) {
      ++finished.dropped;
    } else {
      finished.samples.push_back(std::move(sample.trajectory));
    }
  }
  open_groups_.erase(group);
  leases.deliver(std::move(finished));
}

void Actor::drop_all() {
  engine_.abort_all();
  env_.cancel();
  waiting_.clear();
  open_groups_.clear();
  groups_in_engine_ = 0;
}

void Actor::start(uint64_t prompt_index) {
  const Prompt prompt = config_.split == Split::kTrain ? source_.train_prompt(prompt_index)
                                                       : source_.val_prompt(prompt_index);
  const DataRow row = env_.data_row(config_.split, prompt.item);
  OpenGroup group;
  group.unfinished = group.in_engine = config_.n;
  ++groups_in_engine_;
  for (uint32_t i = 0; i < config_.n; ++i) {
    const uint32_t sample_index = config_.first_sample + i;
    OpenSample sample;
    sample.episode = env_.begin(config_.split, prompt.item, {step_, prompt_index, sample_index});
    sample.trajectory.step = step_;
    sample.trajectory.prompt_index = prompt_index;
    sample.trajectory.sample_index = sample_index;
    sample.trajectory.prompt_tokens = prompt.tokens;
    sample.trajectory.data_source = sample.episode->data_source();
    sample.trajectory.truth = sample.episode->truth();
    sample.trajectory.data_file = row.file;
    sample.trajectory.data_row = row.line;
    sample.trajectory.fingerprint = engine_.fingerprint();
    sample.trajectory.device = device_name(engine_.device());
    group.samples.push_back(std::move(sample));
  }
  submit(group.samples.front(), config_.n);
  open_groups_.emplace(prompt_index, std::move(group));
}

void Actor::submit(const OpenSample& sample, uint32_t n) {
  const rollout::Trajectory& t = sample.trajectory;
  rollout::GenerateRequest request;
  request.seed = config_.seed;
  request.step = t.step;
  request.prompt_index = t.prompt_index;
  request.first_sample = t.sample_index;
  request.n = n;
  request.prompt = t.prompt_tokens;
  request.prompt.insert(request.prompt.end(), t.tokens.begin(), t.tokens.end());
  request.generated_before = t.tokens.size();
  request.sampling = config_.sampling;
  request.max_new_tokens = room(t);
  request.stop_token_ids = config_.stop_token_ids;
  request.stop_strings = config_.stop_strings;
  engine_.submit(std::move(request));
}

void Actor::leave_engine(OpenGroup& group) {
  if (--group.in_engine == 0) --groups_in_engine_;
}

void Actor::finish_turn(OpenGroup& group, OpenSample& sample, rollout::GenerateResult&& turn) {
  rollout::Trajectory& t = sample.trajectory;
  t.tokens.insert(t.tokens.end(), turn.tokens.begin(), turn.tokens.end());
  t.logprobs.insert(t.logprobs.end(), turn.logprobs.begin(), turn.logprobs.end());
  t.entropies.insert(t.entropies.end(), turn.entropies.begin(), turn.entropies.end());
  t.weight_versions.insert(t.weight_versions.end(), turn.weight_versions.begin(),
                           turn.weight_versions.end());
  t.loss_mask.resize(t.tokens.size(), 1);
  t.finish_reason = turn.finish_reason;
  sample.end_token = turn.ends_in_stop_id ? std::optional(turn.tokens.back()) : std::nullopt;
  leave_engine(group);

  const ScopedTimer timer(reward_seconds_);
  // For the environment: without special tokens, and without the id that ended it,
  // special or not.
  sample.text = tokenizer_.decode(turn.text_tokens(), /*skip_special_tokens=*/true);
  t.response_text += sample.text;
  sample.episode->submit(sample.text,
                         turn.finish_reason == rollout::FinishReason::kStop ? room(t) : 0);
  take_answer(group, sample);
}

void Actor::take_answer(OpenGroup& group, OpenSample& sample) {
  rollout::Trajectory& t = sample.trajectory;
  const std::pair<uint64_t, uint32_t> name(t.prompt_index, t.sample_index);
  std::optional<StepResult> result = sample.episode->try_result();
  if (!result) {
    if (sample.state != SampleState::kEnvironment) waiting_.insert(name);
    sample.state = SampleState::kEnvironment;
    return;
  }
  if (sample.state == SampleState::kEnvironment) waiting_.erase(name);
  if (!result->dropped && !result->done && t.finish_reason == rollout::FinishReason::kStop) {
    if (continue_episode(sample, result->observation)) {
      sample.state = SampleState::kEngine;
      if (group.in_engine++ == 0) ++groups_in_engine_;
      return;
    }
    t.finish_reason =
        rollout::FinishReason::kLength;  // no room for the observation: the episode ends with
                                         // the reward so far
  }
  --group.unfinished;
  sample.state = result->dropped ? SampleState::kDropped : SampleState::kDone;
  if (result->dropped) return;
  check_reward(t, *result, sample.text);
  t.reward = result->reward;
  t.reward_extra = std::move(result->extra);
}

bool Actor::continue_episode(OpenSample& sample, const std::string& observation) {
  rollout::Trajectory& t = sample.trajectory;
  const std::vector<int32_t> tokens =
      source_.observation_tokens(*sample.episode, observation, sample.end_token);
  if (std::ssize(tokens) >= room(t)) return false;
  t.tokens.insert(t.tokens.end(), tokens.begin(), tokens.end());
  t.logprobs.resize(t.tokens.size(), 0.0f);
  t.entropies.resize(t.tokens.size(), 0.0f);
  t.weight_versions.resize(t.tokens.size(),
                           t.weight_versions.empty() ? 0 : t.weight_versions.back());
  t.loss_mask.resize(t.tokens.size(), 0);
  t.response_text += observation;
  submit(sample, 1);
  return true;
}

std::vector<rollout::Group> LocalLeases::take() {
  std::sort(groups_.begin(), groups_.end(), [](const rollout::Group& a, const rollout::Group& b) {
    return a.prompt_index < b.prompt_index;
  });
  return std::exchange(groups_, {});
}

}  // namespace orrery::actors
