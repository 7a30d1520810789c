// The supervised stage: imitation of an environment's demonstrations, or of plain text.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "experiments/divergence.h"
#include "experiments/job.h"
#include "experiments/metrics.h"
#include "experiments/sft_data.h"
#include "learners/learner.h"

namespace orrery {

class SftStage {
 public:
  /// Learner ranks only, each of which reads and checks the data: errors as SftData's.
  SftStage(Job& job, Learner& learner);
  /// Step `step` (from 0). Collective over the learners.
  Metrics step(int64_t step);

  /// An example of the last step to try the policy on; none before it.
  std::optional<PolicyProbe> probe() const;

 private:
  Job& job_;
  Learner& learner_;
  SftData data_;
  ChatExample probe_;
  std::vector<uint8_t> probe_mask_;
};

}  // namespace orrery
