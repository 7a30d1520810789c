#include "experiments/rl_stage.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/timer.h"
#include "experiments/inputs.h"
#include "experiments/on_all_ranks.h"
#include "experiments/rl_metrics.h"
#include "experiments/validation_metrics.h"
#include "kernels/peak.h"
#include "learners/weight_channel.h"

namespace orrery::experiments {
namespace {

/// Thrown out of an update that has not changed anything.
struct GivenUp {};

/// A few milliseconds for perf/mfu/actor, once a run.
constexpr int kPeakTurns = 50;

}  // namespace

RlStage::RlStage(Job& job, learners::Learner* learner, int64_t steps_before, StopAsked asked)
    : job_(job),
      learner_(learner),
      steps_before_(steps_before),
      asked_to_stop_(std::move(asked)),
      generation_(job, learner, steps_before, asked_to_stop_) {
  if (learner == nullptr) return;
  update_.emplace(job, *learner, steps_before);
  learner->set_progress([this] { show_progress(); });
}

RlStage::~RlStage() {
  if (learner_ != nullptr) learner_->set_progress([&job = job_] { job.note_progress(); });
}

void RlStage::show_progress() {
  job_.note_progress();
  if (update_->may_give_up() && asked_to_stop_()) throw GivenUp();
}

std::optional<StepReport> RlStage::step(int64_t step) {
  const Timer timer;
  const Generation::Batch batch = generation_.train_batch(step);
  std::optional<Generation::Samples> samples = generation_.run(batch);
  if (!samples) return std::nullopt;
  const int64_t every = job_.config.trainer().rollout_save_freq();
  drawn_.reset();
  if (every > 0 && (step + 1) % every == 0)
    on_all_ranks(job_.world, [&] { drawn_ = draw_record(batch); });
  groups_ = std::move(samples->groups);
  StepReport report;
  Timings timings = {{"gen", samples->seconds}};
  if (samples->reward_seconds) timings["gen/reward"] = *samples->reward_seconds;
  std::string refusal;
  try {
    if (update_)
      refusal = update_->run(step, groups_, samples->greedy_rewards, version_, report, timings);
  } catch (const GivenUp&) {
    return std::nullopt;
  }
  agree_on_refusal(refusal);
  {
    const ScopedTimer publishing(timings["update_weights"]);
    publish(version_ + 1);
  }
  timings["step"] = timer.seconds();
  if (job_.is_learner()) add_metrics(step, samples->dropped, timings, report);
  return report;
}

void RlStage::agree_on_refusal(const std::string& refusal) {
  if (!job_.config.algorithm().verify_logprobs()) return;
  on_all_ranks(job_.world, [&] {
    if (!refusal.empty()) fail("{}", refusal);
  });
}

void RlStage::add_metrics(int64_t step, const DroppedSamples& dropped, Timings& timings,
                          StepReport& report) {
  const proto::Config& config = job_.config;
  const SampleMeans means =
      add_step_metrics(report.metrics, groups_, timings, config, job_.topology);
  report.stats.reward = means.reward;
  report.stats.response_length = means.response_length;
  report.stats.tokens_per_s = means.tokens_per_s;
  if (config.data().env() == proto::DataSection::EXTERNAL) {
    report.metrics["rollout/dropped_samples"] = dropped.samples;
    report.metrics["rollout/dropped_groups"] = dropped.groups;
  }
  add_progress_metrics(report.metrics, steps_before_, step, config.data().train_batch_size(),
                       job_.source->train_size());
  if (!job_.is_main()) return;
  if (peak_flops_ == 0)
    peak_flops_ = kernels::arithmetic_peak(job_.ctx, job_.model().compute_dtype(), kPeakTurns);
  add_mfu_metrics(report.metrics, groups_, job_.model().config(), config.actor().ppo_epochs(),
                  timings["update_actor"], peak_flops_, job_.topology.learners.size());
}

void RlStage::publish(uint64_t version) {
  job_.begin_phase("publish");
  version_ = version;
  if (job_.topology.has_followers()) {
    // The learners hold the same weights already; the actors follow rank 0's. Every
    // rank takes part in the broadcast.
    models::Transformer& model = job_.model();
    const uint64_t sent = learners::publish_weights(
        job_.ctx, job_.world, 0, version_, model.table(),
        job_.is_learner() ? model.rewrite_parameters() : model.write_parameters());
    ORRERY_CHECK(sent == version_, "rank {} expects weights of version {}, rank 0 sends version {}",
                 job_.world.rank(), version_, sent);
    if (!job_.is_learner()) model.pack(job_.ctx);
  }
  generation_.set_weight_version(version_);
}

std::optional<rollout::DrawRecord> RlStage::draw_record(const Generation::Batch& batch) const {
  if (!job_.is_main()) return std::nullopt;
  return rollout::DrawRecord{.seed = generation_.seed(batch),
                             .sampling = generation_.sampling(batch),
                             .weight_version = version_,
                             .weights = weights_input(job_.ctx, job_.model().parameters()).digest};
}

std::optional<PolicyProbe> RlStage::probe() const {
  if (!job_.is_learner()) return std::nullopt;
  for (const rollout::Group& group : groups_) {
    for (const rollout::Trajectory& t : group.samples) {
      if (std::ranges::find(t.loss_mask, uint8_t{1}) == t.loss_mask.end()) continue;
      return PolicyProbe{group.samples.front().prompt_tokens, t.tokens, t.loss_mask,
                         train_sampling(job_.config.rollout()).temperature};
    }
  }
  return std::nullopt;
}

std::optional<RlStage::Validation> RlStage::validate(int64_t step) {
  const Timer timer;
  const Generation::Batch batch = generation_.val_batch(step);
  std::optional<Generation::Samples> samples = generation_.run(batch);
  if (!samples) return std::nullopt;
  Validation validation;
  if (job_.config.trainer().rollout_save_freq() > 0)
    on_all_ranks(job_.world, [&] { validation.drawn = draw_record(batch); });
  if (!job_.is_main()) return validation;
  summarize_validation(samples->groups, validation.metrics, validation.reward, validation.accuracy);
  validation.metrics["timing_s/testing"] = timer.seconds();
  if (job_.config.data().env() == proto::DataSection::EXTERNAL)
    validation.metrics["val-aux/dropped_samples"] = samples->dropped.samples;
  validation.groups = std::move(samples->groups);
  return validation;
}

}  // namespace orrery::experiments
