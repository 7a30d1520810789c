// The supervised stage: imitation of rows of one's own, of plain text, or of an
// environment's demonstrations.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/span.h"
#include "experiments/divergence.h"
#include "experiments/job.h"
#include "experiments/metrics.h"
#include "experiments/sft_data.h"
#include "experiments/step_stats.h"
#include "learners/learner.h"

namespace orrery::experiments {

class SftStage {
 public:
  /// Learner ranks only, each of which reads and checks the data: errors as SftData's
  /// and SftRows'. A usage Error when an example is longer than the model's positions.
  SftStage(Job& job, learners::Learner& learner);
  /// Step `step` (from 0). Collective over the learners. The loss is the mean over the
  /// tokens of the batch, each counting as much as its row's weight says. Of a batch
  /// whose weights are all 0 nothing is learned.
  StepReport step(int64_t step);

  /// Whether the loss of sft.val_files is due after `done` steps (0: before the first
  /// one).
  bool validation_due(int64_t done) const;
  struct Validation {
    double loss = 0;   ///< mean of -log p over the weighted tokens of all rows
    int64_t rows = 0;  ///< of sft.val_files
    Metrics metrics;   ///< the loss, and the time that it took
  };
  /// Collective over the learners; the same bits on any number of them and with any
  /// token budget.
  Validation validate();

  /// An example of the last step to try the policy on; none before it.
  std::optional<PolicyProbe> probe() const;

 private:
  learners::UpdateResult learn(int64_t step, Span<learners::Tree> trees);
  StepReport report(const learners::UpdateResult& update, int64_t sequence_tokens,
                    double seconds) const;

  Job& job_;
  learners::Learner& learner_;
  SftData data_;
  text::ChatExample probe_;
  std::vector<uint8_t> probe_mask_;
};

}  // namespace orrery::experiments
