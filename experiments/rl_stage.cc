#include "experiments/rl_stage.h"

#include <algorithm>
#include <cstdint>

#include "comm/mailbox.h"
#include "comm/weight_channel.h"
#include "core/error.h"
#include "core/log.h"
#include "core/timer.h"
#include "experiments/leases.h"
#include "experiments/rl_metrics.h"
#include "experiments/together.h"
#include "experiments/validation_metrics.h"
#include "kernels/peak.h"

namespace orrery::experiments {
namespace {

/// Keeps the random streams of held-out samples apart from those of training.
constexpr uint64_t kValidationSeed = 0x76616C5F73656564;

/// Thrown out of an update that has not changed anything.
struct GivenUp {};

/// A few milliseconds for perf/mfu/actor, once a run.
constexpr int kPeakTurns = 50;

}  // namespace

RlStage::RlStage(Job& job, learners::Learner* learner, int64_t steps_before)
    : job_(job), learner_(learner), steps_before_(steps_before) {
  if (job.is_actor()) {
    rollout::EngineConfig config = engine_config(job.config, job.model().config());
    if (learner != nullptr)
      config.kv_memory = learner->idle_memory();  // a rank generates or learns
    engine_ = std::make_unique<rollout::Engine>(job.ctx, job.model(), &job.tokenizer, config);
  }
  if (learner != nullptr) {
    update_.emplace(job, *learner, steps_before);
    learner->set_progress([this] { show_progress(); });
  }
}

RlStage::~RlStage() {
  if (learner_ != nullptr) learner_->set_progress([&job = job_] { job.progress(); });
}

void RlStage::show_progress() {
  job_.progress();
  if (update_->may_give_up() && launch::stop_requested()) throw GivenUp();
}

std::optional<Metrics> RlStage::step(int64_t step) {
  const Timer timer;
  Metrics metrics;
  Timings timings;
  const auto batch = static_cast<uint64_t>(job_.config.data().train_batch_size());
  const uint64_t begin = static_cast<uint64_t>(step) * batch;
  Samples samples =
      generate(actors::Split::kTrain, static_cast<uint64_t>(step), begin, begin + batch, timings);
  if (!samples) return std::nullopt;
  groups_ = std::move(*samples);
  // Learners that refuse the batch do so alike; those who only generate hear of it
  // here.
  std::string refusal;
  try {
    if (job_.is_learner()) refusal = update_->run(step, groups_, version_, metrics, timings);
  } catch (const GivenUp&) {
    return std::nullopt;
  }
  if (job_.config.algorithm().verify_logprobs()) {
    together(job_.world, [&] {
      if (!refusal.empty()) fail("{}", refusal);
    });
  }
  {
    const ScopedTimer publishing(timings["update_weights"]);
    publish(version_ + 1);
  }
  timings["step"] = timer.seconds();
  if (job_.is_learner()) {
    add_step_metrics(metrics, groups_, timings, job_.config, job_.topology);
    if (job_.config.data().env() == proto::DataSection::EXTERNAL) {
      metrics["rollout/dropped_samples"] = static_cast<double>(dropped_.samples);
      metrics["rollout/dropped_groups"] = static_cast<double>(dropped_.groups);
    }
    add_progress_metrics(metrics, steps_before_, step, job_.config.data().train_batch_size(),
                         job_.source->train_size());
  }
  if (job_.world.rank() == 0) {
    if (peak_flops_ == 0) peak_flops_ = kernels::measure_fma_peak(job_.ctx.threads, kPeakTurns);
    add_mfu_metrics(metrics, groups_, job_.model().config(), job_.config.actor().ppo_epochs(),
                    timings["update_actor"], peak_flops_, job_.topology.learners);
  }
  return metrics;
}

std::string RlStage::label(actors::Split split, uint64_t step) const {
  const auto done = steps_before_ + static_cast<int64_t>(step);
  return split == actors::Split::kTrain ? fmt::format("generate step {}", done + 1)
                                        : fmt::format("validate step {}", done);
}

RlStage::Samples RlStage::generate(actors::Split split, uint64_t step, uint64_t begin, uint64_t end,
                                   Timings& timings) {
  try {
    return generate_groups(split, step, begin, end, timings);
  } catch (const rollout::NotFiniteError&
               error) {                   // of one rank: the others hear of it when the job ends
    if (job_.watchdog == nullptr) throw;  // no training
    throw Error(
        fmt::format("{}: the policy has diverged: {}; lower actor.optim.lr, or sft.optim.lr, "
                    "and go on from an earlier checkpoint",
                    label(split, step), error.what()),
        kExitDiverged);
  }
}

RlStage::Samples RlStage::generate_groups(actors::Split split, uint64_t step, uint64_t begin,
                                          uint64_t end, Timings& timings) {
  const ScopedTimer timer(timings["gen"]);
  const proto::Config& config = job_.config;
  const bool train = split == actors::Split::kTrain;
  actors::ActorConfig actor_config;
  actor_config.split = split;
  actor_config.seed = train ? config.seed() : config.seed() ^ kValidationSeed;
  actor_config.n = static_cast<uint32_t>(train ? config.rollout().n() : config.rollout().val_n());
  actor_config.sampling = train ? train_sampling(config.rollout()) : val_sampling(config.rollout());
  actor_config.max_response_length = config.data().max_response_length();
  actor_config.stop_token_ids = job_.tokenizer.eos_ids();
  actor_config.stop_strings.assign(config.rollout().stop().begin(), config.rollout().stop().end());
  // An even share, so that the first to ask does not take all.
  const auto prompts = static_cast<int64_t>(end - begin);
  const int64_t share = (prompts + job_.topology.actors() - 1) / job_.topology.actors();
  if (engine_) {
    actor_config.max_groups = std::max<int64_t>(
        1, std::min(share, engine_->max_num_seqs() / static_cast<int64_t>(actor_config.n)));
  }

  std::vector<rollout::Group> groups;
  comm::Communicator& world = job_.world;
  const std::string what = label(split, step);
  const int remote_actors = job_.topology.actors() - (job_.topology.is_actor(0) ? 1 : 0);
  if (world.rank() == 0) {
    LeaseBook book(world, step, begin, end, remote_actors);
    if (engine_) {
      actors::Actor actor(*engine_, job_.tokenizer, *job_.env, *job_.source);
      WatchedLeases watched(book, job_, what);
      actor.run(step, actor_config, watched);
      timings["gen/reward"] += actor.reward_seconds();
    }
    const comm::Watchdog::Wait wait(job_.watchdog, "collect");
    Samples collected = book.collect();
    if (!collected) return std::nullopt;
    groups = std::move(*collected);
  } else {
    RemoteLeases leases(world, step, static_cast<uint32_t>(actor_config.max_groups));
    WatchedLeases watched(leases, job_, what);
    if (engine_) {
      actors::Actor actor(*engine_, job_.tokenizer, *job_.env, *job_.source);
      actor.run(step, actor_config, watched);
    }
    const comm::Watchdog::Wait wait(job_.watchdog, "collect");
    if (!leases.await_end()) return std::nullopt;
  }
  if (config.data().env() == proto::DataSection::EXTERNAL) leave_out_dropped(split, what, groups);
  return share_with_learners(std::move(groups));
}

void RlStage::leave_out_dropped(actors::Split split, const std::string& label,
                                std::vector<rollout::Group>& groups) {
  const std::vector<std::string> troubles = job_.world.all_gather_bytes(job_.env->take_trouble());
  together(job_.world, [&] {
    if (job_.world.rank() != 0) return;
    // A sample that is compared with no other teaches nothing.
    const bool compared = split == actors::Split::kTrain && job_.config.rollout().n() > 1;
    dropped_ = drop_small_groups(groups, compared ? 2 : 1);
    const bool troubled = std::any_of(troubles.begin(), troubles.end(),
                                      [](const std::string& text) { return !text.empty(); });
    const std::string text = dropped_text(label, dropped_, troubles);
    if (groups.empty()) fail("{}: nothing is left; mend data.external.command", text);
    if (troubled || dropped_.samples > 0) spdlog::warn("{}", text);
  });
}

std::vector<rollout::Group> RlStage::share_with_learners(std::vector<rollout::Group> groups) {
  if (!job_.is_learner() || job_.learners->size() == 1) return groups;
  std::string mine;
  if (job_.learners->rank() == 0) {
    proto::GroupsMessage message;
    for (const rollout::Group& group : groups)
      *message.add_groups() = rollout::group_to_proto(group);
    mine = comm::seal(message);
  }
  std::vector<std::string> all = job_.learners->all_gather_bytes(mine);
  if (job_.learners->rank() == 0) return groups;
  const auto message =
      comm::unseal<proto::GroupsMessage>(job_.learners->rank(), 0, std::move(all.front()));
  for (const proto::Group& group : message.groups())
    groups.push_back(rollout::group_from_proto(group));
  return groups;
}

void RlStage::publish(uint64_t version) {
  job_.phase("publish");
  version_ = version;
  if (job_.topology.has_followers()) {
    // The learners hold the same weights already; the actors follow rank 0's. Every
    // rank takes part in the broadcast.
    const uint64_t sent = comm::publish_weights(job_.world, 0, version_, job_.model().parameters());
    ORRERY_CHECK(sent == version_, "rank {} expects weights of version {}, rank 0 sends version {}",
                 job_.world.rank(), version_, sent);
    if (!job_.is_learner()) job_.model().pack(job_.ctx);
  }
  if (engine_) engine_->set_weight_version(version_);
}

std::optional<PolicyProbe> RlStage::probe() const {
  if (!job_.is_learner()) return std::nullopt;
  for (const rollout::Group& group : groups_) {
    for (const rollout::Trajectory& t : group.samples) {
      if (std::find(t.loss_mask.begin(), t.loss_mask.end(), uint8_t{1}) == t.loss_mask.end())
        continue;
      return PolicyProbe{group.samples.front().prompt_tokens, t.tokens, t.loss_mask,
                         static_cast<float>(job_.config.rollout().temperature())};
    }
  }
  return std::nullopt;
}

std::optional<std::vector<rollout::Group>> RlStage::generate_validation(int64_t step) {
  Timings timings;
  return generate(actors::Split::kVal, static_cast<uint64_t>(step), 0, job_.source->val_size(),
                  timings);
}

std::optional<RlStage::Validation> RlStage::validate(int64_t step) {
  const Timer timer;
  Samples groups = generate_validation(step);
  if (!groups) return std::nullopt;
  Validation validation;
  if (job_.world.rank() == 0) {
    summarize_validation(*groups, validation.metrics, validation.reward, validation.accuracy);
    validation.metrics["timing_s/testing"] = timer.seconds();
    if (job_.config.data().env() == proto::DataSection::EXTERNAL) {
      validation.metrics["val-aux/dropped_samples"] = static_cast<double>(dropped_.samples);
    }
    validation.groups = std::move(*groups);
  }
  return validation;
}

}  // namespace orrery::experiments
