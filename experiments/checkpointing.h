// Saving and resuming a run: the driver's state beside the weights and moments, over all learner ranks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "experiments/checkpoint_writer.h"
#include "experiments/job.h"
#include "learners/learner.h"
#include "models/checkpoint.h"

namespace orrery {

/// Where a run stands. The data cursor follows from the steps; random streams are functions of the seed.
struct TrainState {
  int64_t sft_step = 0;                         ///< SFT steps done
  int64_t rl_step = 0;                          ///< RL steps done
  int64_t adam_t = 0;                           ///< optimizer steps since the stage began
  std::optional<double> val_before, val_after;  ///< held-out score before and after RL
  double reward = 0;                            ///< mean reward of the last step

  int64_t step() const { return sft_step + rl_step; }
};

std::string state_to_json(const TrainState& state);
TrainState state_from_json(const std::string& json);

class Checkpointer {
 public:
  Checkpointer(Job& job, std::string config_yaml);

  /// Collective over the learners (no-op elsewhere). Waits for the save before, copies, and leaves writing to
  /// the background. A failed save leaves earlier checkpoints whole: it is reported, at the latest by the
  /// next save, and the run goes on. `must`: waits until the checkpoint is published, and a failure is an
  /// Error. Returns the seconds the step was blocked.
  double save(const TrainState& state, Learner* learner, bool must);

  /// Waits for the save under way; its failure is an Error. For the end of a run.
  void finish();

  /// Seconds in the background of the save that has ended since the last call; does not wait.
  std::optional<double> poll();

  /// Collective over world: finds the checkpoint that trainer.resume asks for, loads weights (every rank) and
  /// moments (this learner's slice), and packs the weights. Nothing when the run starts anew.
  std::optional<TrainState> resume(Learner* learner);

 private:
  void report_changes(const std::string& saved_yaml) const;
  std::filesystem::path choose() const;
  void settle(bool must);

  Job& job_;
  std::string config_yaml_;
  std::filesystem::path folder_;
  std::unique_ptr<CheckpointWriter> writer_;  // from the first save on
  int64_t saving_step_ = 0;
  std::optional<double> background_seconds_;
};

}  // namespace orrery
