#include "kernels/logprob.h"

#include <cmath>

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/logprob.h"

namespace orrery::kernels {
namespace {

void check_rows(const char* op, Mat<const float> logits, std::span<const int32_t> targets,
                std::span<const float> inv_temperature) {
  require_positive(op, "vocabulary", logits.cols);
  require_mat(op, "logits", logits, logits.rows, logits.cols);
  require_size(op, "targets", targets.size(), logits.rows);
  require_size(op, "inv_temperature", inv_temperature.size(), logits.rows);
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0 || targets[i] >= logits.cols) {
      fail("{}: row {} has target {}, outside the vocabulary of {}", op, i, targets[i],
           logits.cols);
    }
    if (!(std::isfinite(inv_temperature[i]) && inv_temperature[i] > 0.0f)) {
      fail("{}: row {} has inverse temperature {}; it must be a positive number", op, i,
           inv_temperature[i]);
    }
  }
}

}  // namespace

void logprob_forward(const Context& ctx, std::span<float> logprobs, std::span<float> entropies,
                     std::span<float> lse, Mat<const float> logits,
                     std::span<const int32_t> targets, std::span<const float> inv_temperature) {
  constexpr const char* kOp = "logprob_forward";
  require_cpu(ctx, kOp);
  check_rows(kOp, logits, targets, inv_temperature);
  require_size(kOp, "logprobs", logprobs.size(), logits.rows);
  if (!entropies.empty()) require_size(kOp, "entropies", entropies.size(), logits.rows);
  if (!lse.empty()) require_size(kOp, "lse", lse.size(), logits.rows);
  const ProfileOpScope profile(ctx, "log-prob and entropy", 0, f32_bytes(logits.size()));
  logprob_forward_cpu(ctx, logprobs, entropies, lse, logits, targets, inv_temperature);
}

void logprob_backward(const Context& ctx, Mat<float> logits, std::span<const int32_t> targets,
                      std::span<const float> lse, std::span<const float> entropies,
                      std::span<const float> dlogp, std::span<const float> dentropy,
                      std::span<const float> inv_temperature) {
  constexpr const char* kOp = "logprob_backward";
  require_cpu(ctx, kOp);
  check_rows(kOp, logits, targets, inv_temperature);
  require_size(kOp, "lse", lse.size(), logits.rows);
  require_size(kOp, "dlogp", dlogp.size(), logits.rows);
  if (!dentropy.empty()) {
    require_size(kOp, "dentropy", dentropy.size(), logits.rows);
    require_size(kOp, "entropies", entropies.size(), logits.rows);
  }
  const ProfileOpScope profile(ctx, "log-prob backward", 0, f32_bytes(2 * logits.size()));
  logprob_backward_cpu(ctx, logits, targets, lse, entropies, dlogp, dentropy, inv_temperature);
}

}  // namespace orrery::kernels
