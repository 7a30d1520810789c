#include "experiments/train_sft.h"

#include <string>

#include "launch/stop_signal.h"

namespace orrery::experiments {
namespace {

/// How the stage ended on the learners, alike on all of them.
struct End {
  std::string why;  ///< the policy has diverged; empty: it has not
  bool stopped = false;
};

End learners_part(Run& run, SftStage& stage) {
  storage::TrainState& state = run.state;
  run.reporter->begin_stage(state.sft_step);
  if (state.sft_step == 0 && stage.validation_due(0))
    run.reporter->sft_start(state, stage.validate());
  End end;
  while (!run.sft_is_done() && end.why.empty()) {
    end.stopped = launch::agree_to_stop(*run.job.learners);
    if (end.stopped) break;
    const StepReport step = stage.step(state.sft_step);
    ++state.sft_step;
    const bool last = run.sft_is_done(), due = run.save_due(state.sft_step, run.length.sft);
    end.why = run.why_end(step.stats, run.length.sft, /*try_policy=*/last || due, stage.probe());
    std::optional<SftStage::Validation> validation;
    if (end.why.empty() && stage.validation_due(state.sft_step)) validation = stage.validate();
    run.reporter->tell_of_saves(run.checkpointer.poll());
    run.report_step();
    run.reporter->sft_step(state, step, validation);
    // After the metrics: a run killed in between does the step again, so that no step
    // is ever missing from the file.
    if (due && end.why.empty()) run.save_if_learned(last, /*must=*/false);
  }
  if (end.stopped) {
    end.why = run.divergence->problem(stage.probe());
    if (end.why.empty()) run.save_at_the_end();
  }
  return end;
}

}  // namespace

bool train_sft(Run& run) {
  if (run.sft_is_done()) return true;
  End end;
  if (run.sft) end = learners_part(run, *run.sft);
  run.sft.reset();
  const std::string why =
      text_of_lowest_rank(run.job.world, end.why);  // ranks that only act wait here
  if (!why.empty()) run.end_diverged(why, "sft.optim.lr");
  double stopped[1] = {end.stopped ? 1.0 : 0.0};
  run.job.world.all_reduce_max(stopped);
  if (stopped[0] == 0) run.state.sft_step = run.length.sft;
  run.report_step();
  return stopped[0] == 0;
}

}  // namespace orrery::experiments
