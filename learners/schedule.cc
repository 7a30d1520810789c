#include "learners/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace orrery::learners {

double learning_rate(const LrSchedule& s, int64_t step) {
  if (step < s.warmup_steps)
    return s.lr * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  const auto span = static_cast<double>(std::max<int64_t>(s.total_steps - s.warmup_steps, 1));
  const double progress = std::min(1.0, static_cast<double>(step - s.warmup_steps) / span);
  switch (s.scheduler) {
    case proto::OptimSection::CONSTANT:
      return s.lr;
    case proto::OptimSection::LINEAR:
      return s.lr * (1.0 - (1.0 - s.min_lr_ratio) * progress);
    case proto::OptimSection::COSINE:
      break;
  }
  return s.lr * (s.min_lr_ratio +
                 (1.0 - s.min_lr_ratio) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace orrery::learners
