#include "experiments/run.h"

#include <utility>

#include "core/log.h"
#include "experiments/on_all_ranks.h"
#include "experiments/reference.h"
#include "rollout/rollout_file.h"

namespace orrery::experiments {
namespace {

RunLength run_length(const proto::Config& config) {
  return {config.sft().total_training_steps(), config.trainer().total_training_steps()};
}

}  // namespace

Run::Run(Job& its_job, const std::string& config_yaml, launch::RunFolder& folder)
    : job(its_job), length(run_length(job.config)), checkpointer(job, config_yaml) {
  on_all_ranks(job.world, [&] {
    if (length.rl > 0 && job.is_actor())
      check_kv_cache(job.config, job.model().config(), job.ctx.device);
  });
  make_learner();
  on_all_ranks(job.world, [&] {
    if (job.is_main()) folder.take(/*make=*/true);
  });
  folder.mark_taken();
  job.begin_phase("resume");
  const Checkpointer::Resumed resumed = checkpointer.resume(learner.get());
  state = resumed.state;
  report_step();
  if (learner) {
    divergence.emplace(job.ctx, *job.learners, std::as_const(job.model()).parameters(), *learner,
                       state.start_largest.value_or(1));
  }
  check_what_may_refuse();
  on_all_ranks(job.world, [&] {
    reporter =
        make_reporter(job, config_yaml, length, resumed, validates_first() || state.validation_due);
  });
  if (job.config.trainer().save_freq() >= 0 && !is_complete()) checkpointer.prepare(learner.get());
}

void Run::make_learner() {
  if (!job.is_learner()) return;
  const proto::ClusterSection& cluster = job.config.cluster();
  const learners::LearnerConfig config{
      cluster.gradient_shards(), job.config.actor().ppo_max_token_len_per_gpu(),
      cluster.reduce() == proto::ClusterSection::FAST, job.topology.learners};
  learner = std::make_unique<learners::Learner>(job.ctx, job.model(), *job.learners, config);
  learner->set_progress([&job = job] { job.note_progress(); });
}

void Run::check_what_may_refuse() {
  if (!sft_is_done()) {
    job.begin_phase("read the supervised data");
    on_all_ranks(job.world, [&] {
      if (job.is_learner()) sft.emplace(job, *learner);
    });
  }
  // A reward program that cannot even start is better known before SFT than after it.
  if (length.rl > 0 && !sft_is_done()) {
    on_all_ranks(job.world, [&] {
      if (job.is_actor()) job.env->check_starts();
    });
  }
  if (length.rl > 0 && !is_complete())
    on_all_ranks(job.world, [&] { load_reference(job, length.sft > 0, state); });
}

bool Run::is_complete() const {
  return sft_is_done() && state.rl_step >= length.rl &&
         (state.val_after || job.config.trainer().test_freq() == 0);
}

bool Run::validates_first() const {
  const bool tests = job.config.trainer().test_freq() != 0;
  const bool sft_first =
      state.step() == 0 && !job.config.sft().val_files().empty() && !sft_is_done();
  return tests && (sft_first || (length.rl > 0 && state.rl_step == 0));
}

bool Run::save_due(int64_t done, int64_t total) const {
  const int64_t freq = job.config.trainer().save_freq();
  return freq >= 0 && (done == total || (freq > 0 && done % freq == 0));
}

void Run::report_step() const {
  if (job.watchdog == nullptr) return;
  if (sft_is_done() && length.rl > 0) {
    job.watchdog->set_step(state.step(), rollout::kRlStage, state.rl_step);
  } else {
    job.watchdog->set_step(state.step(), kSftStage, state.sft_step);
  }
}

std::string Run::why_end(const StepStats& step, int64_t stage_total, bool try_policy,
                         const std::optional<PolicyProbe>& probe) {
  const bool dead = is_dead_gradient(step.grad_norm, step.entropy, step.signal);
  state.skipped_steps = step.skipped_updates > 0 || dead ? state.skipped_steps + 1 : 0;
  std::string why = skipped_steps_problem(state.skipped_steps, stage_total, dead);
  if (why.empty() && try_policy) why = divergence->problem(probe);
  return why;
}

void Run::end_diverged(const std::string& why, const char* rate_key) {
  checkpointer.finish(/*must=*/false);
  experiments::end_diverged(step_text(state), why, rate_key,
                            job.config.trainer().resume() != "off");
}

void Run::save_if_learned(bool last, bool must) {
  if (last || state.skipped_steps == 0) {
    save(must);
  } else {
    reporter->save_left_out(state);
  }
}

void Run::save_at_the_end() {
  if (learner && !checkpointer.has(state.step())) save(/*must=*/true);
}

void Run::save(bool must) {
  job.begin_phase(fmt::format("save step {}", state.step()));
  state.adam_t = learner ? learner->optimizer().t() : 0;
  reporter->saved(checkpointer.save(state, learner.get(), must));
}

void Run::finish(bool complete) {
  job.begin_phase("finish the last save");
  checkpointer.finish();
  if (complete) {
    reporter->complete(state);
  } else {
    reporter->stopped(state);
  }
}

}  // namespace orrery::experiments
