#include "kernels/cpu/logprob.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/logprob.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

using cpu::LogprobRow;
using cpu::LogprobRowGrad;

/// The largest logit * inv; -inf for NaN alone. The order does not matter, so four run
/// side by side.
HWY_INLINE float row_max(const float* logits, int64_t vocab, Lanes inv) {
  const Lanes none = set16(-std::numeric_limits<float>::infinity());
  Lanes m0 = none, m1 = none, m2 = none, m3 = none;
  int64_t j = 0;
  for (; j + 4 * kSumLanes <= vocab; j += 4 * kSumLanes) {
    m0 = max16(mul(load16(logits + j), inv), m0);
    m1 = max16(mul(load16(logits + j + kSumLanes), inv), m1);
    m2 = max16(mul(load16(logits + j + 2 * kSumLanes), inv), m2);
    m3 = max16(mul(load16(logits + j + 3 * kSumLanes), inv), m3);
  }
  for_each16(vocab - j, [&](int64_t i, auto io) HWY_ATTR {
    m0 = max16(mul(io.load(logits + j + i, -std::numeric_limits<float>::infinity()), inv), m0);
  });
  return largest16(max16(max16(m0, m1), max16(m2, m3)));
}

/// A logit of -inf (a masked token) has p = 0; so that p (z - m) is 0 too, z - m counts
/// as the lowest finite number.
HWY_INLINE Lanes finite_below(Lanes below_max) {
  return max16(below_max, set16(std::numeric_limits<float>::lowest()));
}

template <bool kEntropy>
HWY_INLINE LogprobRow logprob_row_of(const float* logits, int64_t vocab, int64_t target,
                                     float inv_temperature) {
  const Lanes inv = set16(inv_temperature);
  const float max = row_max(logits, vocab, inv);
  const Lanes m = set16(max);
  Lanes sum = set16(0.0f);
  Lanes weighted = set16(0.0f);
  for_each16(vocab, [&](int64_t j, auto io) HWY_ATTR {
    const Lanes z = mul(io.load(logits + j, -std::numeric_limits<float>::infinity()), inv);
    const Lanes below_max = sub(z, m);
    const Lanes p = exp16(below_max);
    sum = add(sum, p);
    if constexpr (kEntropy) weighted = mul_add(p, finite_below(below_max), weighted);
  });
  const float s = sum16(sum);
  LogprobRow row{};
  row.max = max;
  row.log_sum = orrery::kernels::log_f32(s);
  row.logprob = (logits[target] * inv_temperature - max) - row.log_sum;
  if constexpr (kEntropy) row.entropy = row.log_sum - sum16(weighted) / s;
  return row;
}

LogprobRow logprob_row(const float* logits, int64_t vocab, int64_t target, float inv_temperature,
                       bool entropy) {
  return entropy ? logprob_row_of<true>(logits, vocab, target, inv_temperature)
                 : logprob_row_of<false>(logits, vocab, target, inv_temperature);
}

/// dz_j = fma(dlogp, [j = t] - p_j, -(dentropy p_j (log p_j + H))), then times 1 /
/// temperature. dlogits may be the logits.
template <class T>
HWY_INLINE void row_backward(T* dlogits, const float* logits, int64_t vocab,
                             const LogprobRowGrad& g) {
  const float target_below = logits[g.target] * g.inv_temperature - g.max;
  const Lanes inv = set16(g.inv_temperature);
  const Lanes m = set16(g.max);
  const Lanes log_sum = set16(g.log_sum);
  const Lanes entropy = set16(g.entropy);
  const Lanes dlogp = set16(g.dlogp);
  const Lanes dentropy = set16(g.dentropy);
  for_each16(vocab, [&](int64_t j, auto io) HWY_ATTR {
    const Lanes below_max = sub(mul(io.load(logits + j), inv), m);
    const Lanes p = exp16(sub(below_max, log_sum));
    const Lanes spread = add(sub(finite_below(below_max), log_sum), entropy);
    const Lanes q = mul(mul(dentropy, p), spread);
    io.store(dlogits + j, mul(mul_add(dlogp, sub(set16(0.0f), p), neg(q)), inv));
  });
  // The target's own element, where the bracket is 1.
  const float p = orrery::kernels::exp_f32(target_below - g.log_sum);
  const float spread =
      (std::max(target_below, std::numeric_limits<float>::lowest()) - g.log_sum) + g.entropy;
  const float q = g.dentropy * p * spread;
  const float d = std::fma(g.dlogp, 1.0f - p, -q) * g.inv_temperature;
  if constexpr (std::is_same_v<T, Bf16>) {
    dlogits[g.target] = to_bf16(d);
  } else {
    dlogits[g.target] = d;
  }
}

void logprob_row_backward(float* dlogits, const float* logits, int64_t vocab,
                          const LogprobRowGrad& g) {
  row_backward(dlogits, logits, vocab, g);
}
void logprob_row_backward_bf16(Bf16* dlogits, const float* logits, int64_t vocab,
                               const LogprobRowGrad& g) {
  row_backward(dlogits, logits, vocab, g);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/parallel.h"
#include "kernels/checks.h"
#include "kernels/cpu/host.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(logprob_row);
HWY_EXPORT(logprob_row_backward);
HWY_EXPORT(logprob_row_backward_bf16);

void logprob_forward(const Context& ctx, const LogprobForward& op) {
  const Span<float> logprobs = host(op.logprobs), entropies = host(op.entropies),
                    max = host(op.max), log_sum = host(op.log_sum);
  const Span<const int32_t> targets = host(op.targets);
  const Span<const float> inv_temperature = host(op.inv_temperature);
  const int64_t vocab = op.logits.cols;
  auto* const row_of =
      op.numerics == NumericsClass::kDot16 ? &dot16_logprob_row : HWY_DYNAMIC_DISPATCH(logprob_row);
  parallel_for(ctx, op.logits.rows, kExpGrain / vocab, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t target = std::max(targets[i], 0);  // -1: the row gives NaN anyway
      const LogprobRow result =
          row_of(row(op.logits, i), vocab, target, inv_temperature[i], !entropies.empty());
      logprobs[i] = result.logprob;
      if (!entropies.empty()) entropies[i] = result.entropy;
      if (!max.empty()) max[i] = result.max;
      if (!log_sum.empty()) log_sum[i] = result.log_sum;
    }
  });
}

namespace {

/// backward_row(dlogits, logits, vocab, grad) of each row that has a gradient.
template <class T, class Backward>
void backward_rows(const Context& ctx, const LogprobBackward& op, const Backward& backward_row) {
  const Span<const int32_t> targets = host(op.targets);
  const Span<const float> max = host(op.max), log_sum = host(op.log_sum),
                          entropies = host(op.entropies), dlogp = host(op.dlogp),
                          dentropy = host(op.dentropy), inv_temperature = host(op.inv_temperature);
  const auto dlogits = op.dlogits.as<T>();
  const int64_t vocab = op.logits.cols;
  parallel_for(ctx, op.logits.rows, kExpGrain / vocab, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const LogprobRowGrad grad{.target = targets[i],
                                .max = max[i],
                                .log_sum = log_sum[i],
                                .entropy = dentropy.empty() ? 0.0f : entropies[i],
                                .dlogp = dlogp[i],
                                .dentropy = dentropy.empty() ? 0.0f : dentropy[i],
                                .inv_temperature = inv_temperature[i]};
      if (grad.dlogp == 0.0f && grad.dentropy == 0.0f) {
        std::fill_n(row(dlogits, i), vocab, T{});
      } else {
        backward_row(row(dlogits, i), row(op.logits, i), vocab, grad);
      }
    }
  });
}

}  // namespace

void logprob_backward(const Context& ctx, const LogprobBackward& op) {
  if (op.dlogits.dtype == DType::kBF16) {
    backward_rows<Bf16>(ctx, op, HWY_DYNAMIC_DISPATCH(logprob_row_backward_bf16));
  } else {
    backward_rows<float>(ctx, op, HWY_DYNAMIC_DISPATCH(logprob_row_backward));
  }
}

}  // namespace orrery::kernels::cpu
#endif
