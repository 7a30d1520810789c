// The supervised stage: imitation of an environment's demonstrations, or of plain text.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "experiments/divergence.h"
#include "experiments/job.h"
#include "experiments/metrics.h"
#include "learners/learner.h"

namespace orrery {

/// Supervised examples by number; a function of (config, seed, index), so the data cursor is the step.
class SftData {
 public:
  explicit SftData(const Job& job);
  struct Example {
    std::vector<int32_t> prompt, response;
  };
  Example example(uint64_t index) const;

 private:
  const Job& job_;
  std::vector<std::vector<int32_t>> documents_;  // tokens of sft.text_files; empty: demonstrations
};

class SftStage {
 public:
  /// Learner ranks only.
  SftStage(Job& job, Learner& learner);
  /// Step `step` (from 0). Collective over the learners.
  Metrics step(int64_t step);

  /// An example of the last step to try the policy on; none before it.
  std::optional<PolicyProbe> probe() const;

 private:
  Job& job_;
  Learner& learner_;
  SftData data_;
  SftData::Example probe_;
  std::vector<uint8_t> probe_mask_;
};

}  // namespace orrery
