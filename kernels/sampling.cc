#include "kernels/sampling.h"

#include <cmath>

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/sampling.h"

namespace orrery::kernels {
namespace {

void check_params(const char* op, int64_t row, const SamplingParams& p) {
  const auto check = [&](bool ok, const char* name, float value, const char* wanted) {
    if (!ok) fail("{}: row {} has {} {}; it must be {}", op, row, name, value, wanted);
  };
  check(is_temperature(p.temperature), "temperature", p.temperature, "0 (greedy) or at least 1e-6");
  check(p.top_p >= 0.0f && p.top_p <= 1.0f, "top_p", p.top_p, "in [0, 1]");
  check(p.min_p >= 0.0f && p.min_p <= 1.0f, "min_p", p.min_p, "in [0, 1]");
}

}  // namespace

void sample_forward(const Context& ctx, Span<int32_t> ids, Mat<const float> logits,
                    Span<const SamplingParams> params, Span<const float> uniform, Arena& arena) {
  constexpr const char* kOp = "sample_forward";
  require_cpu(ctx, kOp);
  require_positive(kOp, "vocabulary", logits.cols);
  if (logits.cols > kMaxSamplingVocab) {
    fail("{}: the vocabulary of {} is larger than {}", kOp, logits.cols, kMaxSamplingVocab);
  }
  require_mat(kOp, "logits", logits, logits.rows, logits.cols);
  require_size(kOp, "ids", ids.size(), logits.rows);
  require_size(kOp, "params", params.size(), logits.rows);
  require_size(kOp, "uniform", uniform.size(), logits.rows);
  for (int64_t i = 0; i < params.size(); ++i) {
    check_params(kOp, i, params[i]);
    if (!(uniform[i] >= 0.0f && uniform[i] < 1.0f)) {
      fail("{}: row {} has draw {}; it must be in [0, 1)", kOp, i, uniform[i]);
    }
  }
  const ProfileOpScope profile(ctx, "sampling", 0, f32_bytes(logits.size()));
  sample_forward_cpu(ctx, ids, logits, params, uniform, arena);
}

}  // namespace orrery::kernels
