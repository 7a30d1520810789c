// One training run on one rank: what its two stages share, and what is done alike
// between the steps of either.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "experiments/checkpointing.h"
#include "experiments/divergence.h"
#include "experiments/job.h"
#include "experiments/reporter.h"
#include "experiments/sft_stage.h"
#include "experiments/step_stats.h"
#include "launch/run_folder.h"
#include "learners/learner.h"
#include "storage/train_state.h"

namespace orrery::experiments {

struct Run {
  /// Collective over the job's world. Takes the run's folder, resumes, and reads and
  /// checks all that may refuse before anything in the folder is written. `job` must
  /// outlive the run.
  Run(Job& job, const std::string& config_yaml, launch::RunFolder& folder);
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  bool sft_is_done() const { return state.sft_step >= length.sft; }
  bool is_complete() const;
  /// What comes next begins with a validation: RL, or the first step of SFT.
  bool validates_first() const;
  bool save_due(int64_t done, int64_t total) const;

  /// Tells the watchdog how many steps are done.
  void report_step() const;

  /// On a learner, after a step: counts those in a row that taught nothing, as they
  /// were skipped or are of a dead policy. Returns why the run must end, alike on all
  /// learners, or nothing. `try_policy`: a checkpoint is due, or it is the last step of
  /// the stage, so that the policy is tried on `probe`.
  std::string why_end(const StepStats& step, int64_t stage_total, bool try_policy,
                      const std::optional<PolicyProbe>& probe);
  /// Ends the run, alike on every rank, after the save under way: it is of a sound
  /// policy, and the last. `why`: as text_of_lowest_rank() gave it; `rate_key`: the
  /// learning rate to lower.
  [[noreturn]] void end_diverged(const std::string& why, const char* rate_key);

  /// A checkpoint that is due in the middle of a stage, unless the last steps taught
  /// nothing: its weights would be those of the one before.
  void save_if_learned(bool last, bool must);
  /// For the end of a run: makes sure that the checkpoint of this step is there.
  void save_at_the_end();
  void save(bool must);
  /// Waits for the last save and says how the run ended. `complete`: not asked to stop.
  void finish(bool complete);

  Job& job;
  const RunLength length;
  storage::TrainState state;
  Checkpointer checkpointer;
  std::unique_ptr<learners::Learner> learner;  ///< of the policy; null on ranks that only act
  std::optional<DivergenceCheck> divergence;   ///< on learners
  std::optional<SftStage> sft;                 ///< on learners, while there are SFT steps left
  std::unique_ptr<Reporter> reporter;

 private:
  void make_learner();
  void check_what_may_refuse();
};

}  // namespace orrery::experiments
