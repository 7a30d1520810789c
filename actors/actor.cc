#include "actors/actor.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "core/error.h"
#include "core/timer.h"

namespace orrery {
namespace {

constexpr auto kIdleSleep = std::chrono::microseconds(200);

void check_reward(const Trajectory& t, const StepResult& result, const std::string& text) {
  const auto check = [&](const std::string& what, double value) {
    if (std::isfinite(value)) return;
    fail(
        "the {} of {} is {} for prompt {} sample {} (response: \"{:.80}\"); it must be a finite number: fix "
        "the environment or the data row",
        what, t.data_source, value, t.prompt_index, t.sample_index, text);
  };
  check("reward", result.reward);
  for (const auto& [name, value] : result.extra) check("reward part '" + name + "'", value);
}

}  // namespace

Actor::Actor(Engine& engine, const Tokenizer& tokenizer, const Environment& env, const PromptSource& source,
             ActorConfig config)
    : engine_(engine), tokenizer_(tokenizer), env_(env), source_(source), config_(std::move(config)) {}

void Actor::run(uint64_t step, LeaseSource& leases) {
  reward_seconds_ = 0;
  const int64_t limit =
      config_.max_groups > 0 ? config_.max_groups : std::max<int64_t>(1, engine_.max_num_seqs() / config_.n);
  while (true) {
    leases.poll();
    if (leases.stopping()) {
      engine_.abort_all();
      work_.clear();
      return;
    }
    while (static_cast<int64_t>(work_.size()) < limit) {
      const std::optional<uint64_t> prompt_index = leases.try_lease();
      if (!prompt_index) break;
      start(step, *prompt_index);
    }
    if (!engine_.has_work()) {
      if (work_.empty() && leases.exhausted()) return;
      std::this_thread::sleep_for(kIdleSleep);  // waiting for a lease: leave the core to other ranks
      continue;
    }
    for (GenerateResult& turn : engine_.step()) {
      const auto it = work_.find(turn.prompt_index);
      ORRERY_CHECK(it != work_.end() && turn.sample_index < it->second.samples.size(),
                   "the engine returned sample {} of prompt {}, which nobody asked for", turn.sample_index,
                   turn.prompt_index);
      Work& work = it->second;
      if (!finish_turn(work.samples[turn.sample_index], std::move(turn)) || --work.unfinished > 0) continue;
      Group group{step, it->first, {}};
      for (Sample& sample : work.samples) group.samples.push_back(std::move(sample.trajectory));
      work_.erase(it);
      leases.deliver(std::move(group));
    }
  }
}

void Actor::start(uint64_t step, uint64_t prompt_index) {
  const Prompt prompt =
      config_.split == Split::kTrain ? source_.train_prompt(prompt_index) : source_.val_prompt(prompt_index);
  const DataRow row = env_.data_row(config_.split, prompt.item);
  Work work;
  work.unfinished = config_.n;
  for (uint32_t i = 0; i < config_.n; ++i) {
    Sample sample;
    sample.episode = env_.reset(config_.split, prompt.item);
    sample.trajectory.step = step;
    sample.trajectory.prompt_index = prompt_index;
    sample.trajectory.sample_index = i;
    sample.trajectory.prompt_tokens = prompt.tokens;
    sample.trajectory.data_source = sample.episode->data_source();
    sample.trajectory.truth = sample.episode->truth();
    sample.trajectory.data_file = row.file;
    sample.trajectory.data_row = row.line;
    sample.trajectory.fingerprint = engine_.fingerprint();
    work.samples.push_back(std::move(sample));
  }
  submit(work.samples.front(), config_.n);
  work_.emplace(prompt_index, std::move(work));
}

void Actor::submit(const Sample& sample, uint32_t n) {
  const Trajectory& t = sample.trajectory;
  GenerateRequest request;
  request.seed = config_.seed;
  request.step = t.step;
  request.prompt_index = t.prompt_index;
  request.first_sample = t.sample_index;
  request.n = n;
  request.prompt = t.prompt_tokens;
  request.prompt.insert(request.prompt.end(), t.tokens.begin(), t.tokens.end());
  request.generated_before = static_cast<uint32_t>(t.tokens.size());
  request.sampling = config_.sampling;
  request.max_new_tokens = config_.max_response_length - static_cast<int64_t>(t.tokens.size());
  request.stop_token_ids = config_.stop_token_ids;
  request.stop_strings = config_.stop_strings;
  engine_.submit(std::move(request));
}

bool Actor::finish_turn(Sample& sample, GenerateResult&& turn) {
  Trajectory& t = sample.trajectory;
  t.tokens.insert(t.tokens.end(), turn.tokens.begin(), turn.tokens.end());
  t.logprobs.insert(t.logprobs.end(), turn.logprobs.begin(), turn.logprobs.end());
  t.entropies.insert(t.entropies.end(), turn.entropies.begin(), turn.entropies.end());
  t.weight_versions.insert(t.weight_versions.end(), turn.weight_versions.begin(), turn.weight_versions.end());
  t.loss_mask.resize(t.tokens.size(), 1);
  t.finish_reason = turn.finish_reason;

  const ScopedTimer timer(reward_seconds_);
  // For the environment: without special tokens, and without the id that ended it, special or not.
  const std::string text = tokenizer_.decode(turn.text_tokens(), /*skip_special_tokens=*/true);
  t.response_text += text;
  StepResult result = sample.episode->step(text);
  if (!result.done && turn.finish_reason == FinishReason::kStop) {
    const std::vector<int32_t> observation =
        tokenizer_.encode(result.observation, /*add_special_tokens=*/false);
    if (static_cast<int64_t>(t.tokens.size() + observation.size()) < config_.max_response_length) {
      t.tokens.insert(t.tokens.end(), observation.begin(), observation.end());
      t.logprobs.resize(t.tokens.size(), 0.0f);
      t.entropies.resize(t.tokens.size(), 0.0f);
      t.weight_versions.resize(t.tokens.size(), t.weight_versions.empty() ? 0 : t.weight_versions.back());
      t.loss_mask.resize(t.tokens.size(), 0);
      t.response_text += result.observation;
      submit(sample, 1);
      return false;
    }
    t.finish_reason =
        FinishReason::kLength;  // no room for the observation: the episode ends with the reward so far
  }
  check_reward(t, result, text);
  t.reward = result.reward;
  t.reward_extra = std::move(result.extra);
  return true;
}

std::vector<Group> LocalLeases::take() {
  std::sort(groups_.begin(), groups_.end(),
            [](const Group& a, const Group& b) { return a.prompt_index < b.prompt_index; });
  return std::exchange(groups_, {});
}

}  // namespace orrery
