#include "kernels/logprob.h"

#include <cmath>

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/logprob.h"
#include "kernels/cuda/logprob.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {
namespace {

void check_shapes(const char* op, Mat<const float> logits, int64_t targets,
                  int64_t inv_temperatures) {
  require_positive(op, "vocabulary", logits.cols);
  require_mat(op, "logits", logits, logits.rows, logits.cols);
  require_size(op, "targets", targets, logits.rows);
  require_size(op, "inv_temperature", inv_temperatures, logits.rows);
}

}  // namespace

void check_logprob_rows(Span<const int32_t> targets, Span<const float> inv_temperature,
                        int64_t vocab) {
  for (int64_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0 || targets[i] >= vocab) {
      fail("logprob_forward: row {} has target {}, outside the vocabulary of {}", i, targets[i],
           vocab);
    }
  }
  for (int64_t i = 0; i < inv_temperature.size(); ++i) {
    if (!(std::isfinite(inv_temperature[i]) && inv_temperature[i] > 0.0f)) {
      fail("logprob_forward: row {} has inverse temperature {}; it must be a positive number", i,
           inv_temperature[i]);
    }
  }
}

void logprob_forward(const Context& ctx, const LogprobForward& op) {
  constexpr const char* kOp = "logprob_forward";
  const int64_t rows = op.logits.rows;
  check_shapes(kOp, op.logits, op.targets.size, op.inv_temperature.size);
  require_size(kOp, "logprobs", op.logprobs.size, rows);
  if (!op.entropies.empty()) require_size(kOp, "entropies", op.entropies.size, rows);
  if (!op.max.empty()) require_size(kOp, "max", op.max.size, rows);
  if (!op.log_sum.empty()) require_size(kOp, "log_sum", op.log_sum.size, rows);
  const ProfileOpScope profile(ctx, "log-prob and entropy", 0, f32_bytes(op.logits.size()));
  dispatch<cpu::logprob_forward, cuda::logprob_forward>(ctx, kOp, op);
}

void logprob_backward(const Context& ctx, const LogprobBackward& op) {
  constexpr const char* kOp = "logprob_backward";
  const int64_t rows = op.logits.rows;
  check_shapes(kOp, op.logits, op.targets.size, op.inv_temperature.size);
  require_mat(kOp, "dlogits", op.dlogits, rows, op.logits.cols);
  require_f32_or_bf16(kOp, "dlogits", op.dlogits.dtype);
  require_size(kOp, "max", op.max.size, rows);
  require_size(kOp, "log_sum", op.log_sum.size, rows);
  require_size(kOp, "dlogp", op.dlogp.size, rows);
  if (!op.dentropy.empty()) {
    require_size(kOp, "dentropy", op.dentropy.size, rows);
    require_size(kOp, "entropies", op.entropies.size, rows);
  }
  const ProfileOpScope profile(ctx, "log-prob backward", 0,
                               f32_bytes(op.logits.size()) + mat_bytes(op.dlogits));
  dispatch<cpu::logprob_backward, cuda::logprob_backward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
