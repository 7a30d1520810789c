// What people see of a training run: lines on the console, metrics.jsonl and
// TensorBoard, and samples kept in rollouts/. Rank 0 has a RunReporter. Every other
// rank has a Reporter, whose methods do nothing, so that the loops report without
// asking which rank they run on.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/span.h"
#include "core/timer.h"
#include "experiments/checkpointing.h"
#include "experiments/job.h"
#include "experiments/metrics.h"
#include "experiments/rl_stage.h"
#include "experiments/sft_stage.h"
#include "experiments/step_stats.h"
#include "rollout/draw_record.h"
#include "storage/train_state.h"

namespace orrery::experiments {

/// Steps that a run has in all.
struct RunLength {
  int64_t sft = 0, rl = 0;
};

/// Reports nothing. `state` is always the run's after the step that is reported.
class Reporter {
 public:
  virtual ~Reporter() = default;

  /// A stage begins, or goes on, after `done` of its steps. Its speed is measured from
  /// here.
  virtual void begin_stage(int64_t /*done*/) {}

  /// The loss on held-out rows before the first SFT step. Later ones come with their
  /// step.
  virtual void sft_start(const storage::TrainState& /*state*/,
                         const SftStage::Validation& /*validation*/) {}
  virtual void sft_step(const storage::TrainState& /*state*/, const StepReport& /*step*/,
                        const std::optional<SftStage::Validation>& /*validation*/) {}
  virtual void rl_step(const storage::TrainState& /*state*/, const StepReport& /*step*/,
                       Span<const rollout::Group> /*groups*/,
                       const std::optional<rollout::DrawRecord>& /*drawn*/) {}
  virtual void rl_validation(const storage::TrainState& /*state*/,
                             const RlStage::Validation& /*validation*/) {}

  /// A save has blocked the run for so many seconds.
  virtual void saved(double /*seconds*/) {}
  /// The next step's line tells of the saves so far: how long the last one blocked, and
  /// how long the longest that has ended since took in the background.
  virtual void tell_of_saves(std::optional<double> /*background_seconds*/) {}
  /// A save that was due is left out, as the last steps taught nothing.
  virtual void save_left_out(const storage::TrainState& /*state*/) {}

  virtual void already_complete(const storage::TrainState& /*state*/) {}
  virtual void stopped(const storage::TrainState& /*state*/) {}
  virtual void complete(const storage::TrainState& /*state*/) {}
};

/// Begins what the run writes beside checkpoints: config.yaml, metrics and rollouts,
/// without what belongs to steps that the run does again. `validates_again`: the
/// validation at the checkpoint's step comes once more. Writes on rank 0 alone.
std::unique_ptr<Reporter> make_reporter(const Job& job, const std::string& config_yaml,
                                        RunLength length, const Checkpointer::Resumed& resumed,
                                        bool validates_again);

}  // namespace orrery::experiments
