#include "experiments/generation.h"

#include <algorithm>
#include <map>
#include <utility>

#include "comm/mailbox.h"
#include "core/error.h"
#include "core/log.h"
#include "core/timer.h"
#include "experiments/device_memory.h"
#include "experiments/on_all_ranks.h"
#include "learners/advantage.h"

namespace orrery::experiments {
namespace {

using actors::Split;
using rollout::Group;

/// Keeps the random streams of held-out samples apart from those of training.
constexpr uint64_t kValidationSeed = 0x76616C5F73656564;

/// What is left of the device, if it is to be taken.
Buffer take_memory(Job& job, learners::Learner* learner) {
  if (takes_rest_of_device(job.config, job.ctx.device)) {
    // That of SFT is free for RL.
    if (learner != nullptr) learner->release_memory();
    // What the ranks' collectives need of the device, they take before.
    if (job.learners) job.learners->data(job.ctx.device);
    if (job.topology.placement == proto::ClusterSection::SPLIT) job.world.data(job.ctx.device);
  }
  return take_rest_of_device(job.config, job.world, job.ctx.device);
}

}  // namespace

Generation::Generation(Job& job, learners::Learner* learner, int64_t steps_before, StopAsked asked)
    : job_(job), steps_before_(steps_before), memory_(take_memory(job, learner)) {
  const int remote_actors = job.topology.actors() - (job.topology.is_actor(0) ? 1 : 0);
  leases_ = make_leases(job.world, remote_actors, std::move(asked));
  on_all_ranks(job.world, [&] {
    if (learner != nullptr && memory_.bytes() > 0) learner->use_memory(memory_.vec<float>());
    if (!job.is_actor()) return;
    rollout::EngineConfig config = engine_config(job.config, job.model().config());
    config.memory = memory_.vec<float>();
    // A rank generates or learns.
    if (learner != nullptr && memory_.bytes() == 0) config.kv_memory = learner->idle_memory();
    engine_ = std::make_unique<rollout::Engine>(job.ctx, job.model(), &job.tokenizer, config);
    actor_ = std::make_unique<actors::Actor>(*engine_, job.tokenizer, *job.env, *job.source);
  });
}

void Generation::set_weight_version(uint64_t version) {
  if (engine_) engine_->set_weight_version(version);
}

Generation::Batch Generation::train_batch(int64_t step) const {
  const uint64_t now = step, size = job_.config.data().train_batch_size();
  return {Split::kTrain,
          {now, now * size, now * size + size},
          fmt::format("generate step {}", steps_before_ + step + 1),
          job_.config.algorithm().adv_estimator() == proto::AlgorithmSection::REMAX};
}

Generation::Batch Generation::val_batch(int64_t step) const {
  const uint64_t now = step;
  return {Split::kVal,
          {now, 0, job_.source->val_size()},
          fmt::format("validate step {}", steps_before_ + step)};
}

void Generation::fail_diverged(const Batch& batch, const char* why) const {
  throw Error(fmt::format("{}: the policy has diverged: {}; lower actor.optim.lr, or sft.optim.lr, "
                          "and go on from an earlier checkpoint",
                          batch.label, why),
              kExitDiverged);
}

std::optional<Generation::Samples> Generation::run(const Batch& batch) {
  const Timer timer;
  std::optional<Samples> greedy;
  if (batch.greedy) {
    Batch first = batch;
    first.label += ", greedy responses";
    greedy = generate(first, /*greedy=*/true);
    if (!greedy) return std::nullopt;
  }
  std::optional<Samples> samples = generate(batch, /*greedy=*/false);
  if (!samples) return std::nullopt;
  if (greedy) add_greedy_rewards(batch, *greedy, *samples);
  samples->seconds = timer.seconds();
  return samples;
}

std::optional<Generation::Samples> Generation::generate(const Batch& batch, bool greedy) {
  const actors::ActorConfig config = actor_config(batch, greedy);
  leases_->begin_batch(batch.prompts, config.max_groups);
  if (actor_) {
    WatchedLeases watched(*leases_, job_, batch.label);
    try {
      actor_->run(batch.prompts.step, config, watched);
    } catch (const rollout::NotFiniteError& error) {
      // One rank's: the others hear of it when the job ends. Without a watchdog nothing
      // is trained.
      if (job_.watchdog == nullptr) throw;
      fail_diverged(batch, error.what());
    }
  } else if (!job_.is_main()) {
    job_.begin_phase(batch.label);
  }
  Samples samples;
  {
    const comm::Watchdog::Wait wait(job_.watchdog, "collect");
    std::optional<std::vector<Group>> groups = leases_->end_batch();
    if (!groups) return std::nullopt;
    samples.groups = std::move(*groups);
  }
  if (actor_ && job_.is_main()) samples.reward_seconds = actor_->reward_seconds();
  if (job_.config.data().env() == proto::DataSection::EXTERNAL) {
    // A sample that should be compared and is alone teaches nothing.
    const bool compared =
        learners::compares_samples(job_.config.algorithm().adv_estimator()) && !greedy;
    leave_out_dropped(batch, batch.split == Split::kTrain && compared ? 2 : 1, samples);
  }
  share_with_learners(samples.groups);
  return samples;
}

uint64_t Generation::seed(const Batch& batch) const {
  const uint64_t seed = job_.config.seed();
  return batch.split == Split::kTrain ? seed : seed ^ kValidationSeed;
}

kernels::SamplingParams Generation::sampling(const Batch& batch) const {
  const proto::RolloutSection& rollout = job_.config.rollout();
  return batch.split == Split::kTrain ? train_sampling(rollout) : val_sampling(rollout);
}

actors::ActorConfig Generation::actor_config(const Batch& batch, bool greedy) const {
  const proto::Config& config = job_.config;
  const bool train = batch.split == Split::kTrain;
  actors::ActorConfig actor;
  actor.split = batch.split;
  actor.seed = seed(batch);
  actor.n = train ? config.rollout().n() : config.rollout().val_n();
  actor.sampling = sampling(batch);
  if (greedy) {
    actor.first_sample = std::exchange(actor.n, 1);
    actor.sampling = {.temperature = 0};
  }
  actor.max_response_length = config.data().max_response_length();
  actor.stop_token_ids = job_.tokenizer.eos_ids();
  actor.stop_strings.assign(config.rollout().stop().begin(), config.rollout().stop().end());
  if (!engine_) return actor;
  // An even share of the prompts, so that the first to ask does not take all.
  const int64_t prompts = batch.prompts.end - batch.prompts.begin;
  const int64_t share = (prompts + job_.topology.actors() - 1) / job_.topology.actors();
  actor.max_groups = std::max<int64_t>(1, std::min(share, engine_->max_num_seqs() / actor.n));
  return actor;
}

void Generation::leave_out_dropped(const Batch& batch, size_t least, Samples& samples) {
  const std::vector<std::string> troubles =
      job_.world.all_gather_bytes(job_.env->take_failure_text());
  on_all_ranks(job_.world, [&] {
    if (!job_.is_main()) return;
    samples.dropped = drop_small_groups(samples.groups, least);
    const bool troubled =
        std::ranges::any_of(troubles, [](const std::string& text) { return !text.empty(); });
    const std::string text = dropped_text(batch.label, samples.dropped, troubles);
    if (samples.groups.empty()) fail("{}: nothing is left; mend data.external.command", text);
    if (troubled || samples.dropped.samples > 0) spdlog::warn("{}", text);
  });
}

void Generation::add_greedy_rewards(const Batch& batch, const Samples& greedy, Samples& samples) {
  std::map<uint64_t, float> rewards;
  for (const Group& group : greedy.groups)
    rewards[group.prompt_index] = group.samples.front().reward;
  const size_t before = samples.groups.size();
  std::erase_if(samples.groups,
                [&](const Group& group) { return !rewards.contains(group.prompt_index); });
  samples.dropped.samples += greedy.dropped.samples;
  samples.dropped.all += greedy.dropped.all;
  samples.dropped.groups += before - samples.groups.size();
  for (const Group& group : samples.groups)
    samples.greedy_rewards.push_back(rewards.at(group.prompt_index));
  if (samples.reward_seconds && greedy.reward_seconds)
    *samples.reward_seconds += *greedy.reward_seconds;
  if (job_.config.data().env() != proto::DataSection::EXTERNAL) return;
  on_all_ranks(job_.world, [&] {
    if (job_.is_main() && samples.groups.empty()) {
      fail("{}, and no prompt has both a sample and a greedy response; mend data.external.command",
           dropped_text(batch.label, samples.dropped, {}));
    }
  });
}

void Generation::share_with_learners(std::vector<Group>& groups) {
  if (!job_.is_learner() || job_.learners->size() == 1) return;
  std::string mine;
  if (job_.learners->rank() == 0) {
    proto::GroupsMessage message;
    for (const Group& group : groups) *message.add_groups() = group_to_proto(group);
    mine = comm::seal(message);
  }
  std::vector<std::string> all = job_.learners->all_gather_bytes(mine);
  if (job_.learners->rank() == 0) return;
  const auto message =
      comm::unseal<proto::GroupsMessage>(job_.learners->rank(), 0, std::move(all.front()));
  for (const proto::Group& group : message.groups())
    groups.push_back(rollout::group_from_proto(group));
}

}  // namespace orrery::experiments
