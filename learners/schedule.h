// Learning rate schedules: a pure function of the step.
#pragma once

#include <cstdint>

#include "proto/config.pb.h"

namespace orrery::learners {

struct LrSchedule {
  double lr = 1e-6;
  int64_t warmup_steps = 0;
  proto::OptimSection::Scheduler scheduler = proto::OptimSection::CONSTANT;
  double min_lr_ratio = 0;  ///< cosine and linear end at lr * min_lr_ratio
  int64_t total_steps = 1;
};

/// Rate of step `step` (from 0). Warm-up is linear: lr (step + 1) / warmup_steps; then
/// from lr to the end value.
double learning_rate(const LrSchedule& schedule, int64_t step);

}  // namespace orrery::learners
