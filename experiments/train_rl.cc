#include "experiments/train_rl.h"

#include <optional>
#include <string>

#include "experiments/on_all_ranks.h"
#include "experiments/reference.h"
#include "experiments/rl_stage.h"
#include "launch/stop_signal.h"

namespace orrery::experiments {
namespace {

constexpr const char* kRateKey = "actor.optim.lr";

/// Before the stage: the reference, and what begins with the stage's first step.
void begin_stage(Run& run) {
  on_all_ranks(run.job.world, [&] { keep_reference(run.job); });
  if (run.learner) run.learner->set_reference(run.job.modules.reference.get());
  if (run.state.rl_step > 0) return;
  run.state.skipped_steps = 0;
  if (!run.learner) return;
  // RL starts with fresh moments: SFT's belong to another objective and learning rate.
  run.learner->optimizer().reset(run.job.ctx);
  run.state.start_largest = run.divergence->begin_stage();
}

/// The validation that is due. False when asked to stop: it is due still.
bool validate(Run& run, RlStage& stage) {
  storage::TrainState& state = run.state;
  const std::optional<RlStage::Validation> validation = stage.validate(state.rl_step);
  if (!validation) return false;
  state.validation_due = false;
  if (state.rl_step == 0) state.val_before = validation->score();
  if (state.rl_step == run.length.rl) state.val_after = validation->score();
  run.reporter->rl_validation(state, *validation);
  return true;
}

/// Saves what the last step left, unless the policy is beyond repair. Always false:
/// asked to stop.
bool stop(Run& run, const RlStage& stage) {
  const bool saved = !run.learner || run.checkpointer.has(run.state.step());
  const std::string why = text_of_lowest_rank(
      run.job.world, saved ? std::string() : run.divergence->problem(stage.probe()));
  if (!why.empty()) run.end_diverged(why, kRateKey);
  if (!saved) run.save(/*must=*/true);
  return false;
}

/// No RL steps are asked for. As a rule the last SFT step has saved; it may have
/// failed.
void end_without_rl(Run& run) {
  if (run.state.rl_step == 0 && run.length.sft > 0 && run.job.config.trainer().save_freq() >= 0)
    run.save_at_the_end();
}

/// What is due after a step. False when asked to stop.
bool after_step(Run& run, RlStage& stage, const StepReport& report) {
  storage::TrainState& state = run.state;
  ++state.rl_step;
  run.report_step();
  state.reward = report.stats.reward;
  const bool last = state.rl_step == run.length.rl,
             due = run.save_due(state.rl_step, run.length.rl);
  std::string why;
  if (run.learner)
    why = run.why_end(report.stats, run.length.rl, /*try_policy=*/last || due, stage.probe());
  why = text_of_lowest_rank(run.job.world, why);
  if (!why.empty()) {
    run.reporter->rl_step(state, report, stage.last_groups(), stage.last_drawn());
    run.end_diverged(why, kRateKey);
  }
  const int64_t test_freq = run.job.config.trainer().test_freq();
  if (test_freq != 0 && (last || (test_freq > 0 && state.rl_step % test_freq == 0))) {
    state.validation_due = true;
    validate(run, stage);
  }
  run.reporter->tell_of_saves(run.checkpointer.poll());
  run.reporter->rl_step(state, report, stage.last_groups(), stage.last_drawn());
  if (state.validation_due) return false;
  if (due) run.save_if_learned(last, /*must=*/last);
  return true;
}

}  // namespace

bool train_rl(Run& run) {
  storage::TrainState& state = run.state;
  if (run.length.rl == 0) {
    end_without_rl(run);
    return true;
  }
  if (run.is_complete()) {
    run.reporter->already_complete(state);
    return true;
  }
  begin_stage(run);
  RlStage stage(run.job, run.learner.get(), state.sft_step);
  stage.publish(state.step());
  const int64_t test_freq = run.job.config.trainer().test_freq();
  state.validation_due = test_freq != 0 && (state.validation_due || run.validates_first());
  if (state.validation_due) {
    if (!validate(run, stage)) return stop(run, stage);
    if (state.rl_step == run.length.rl && run.save_due(state.rl_step, run.length.rl))
      run.save(/*must=*/true);
  }

  run.reporter->begin_stage(state.rl_step);
  while (state.rl_step < run.length.rl) {
    if (launch::agree_to_stop(run.job.world)) return stop(run, stage);
    const std::optional<StepReport> report = stage.step(state.rl_step);
    if (!report || !after_step(run, stage, *report)) return stop(run, stage);
  }
  return true;
}

}  // namespace orrery::experiments
