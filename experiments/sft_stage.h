// The supervised stage: imitation of an environment's demonstrations, or of plain text.
#pragma once

#include <cstdint>

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

 private:
  Job& job_;
  Learner& learner_;
  SftData data_;
};

}  // namespace orrery
