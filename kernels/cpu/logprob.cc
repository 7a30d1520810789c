#include "kernels/cpu/logprob.h"

#include <algorithm>
#include <cmath>
#include <limits>

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

/// A logit of -inf (a masked token) has p = 0; so that p z is 0 too, z counts as the
/// lowest finite number.
HWY_INLINE Lanes finite_below(Lanes z) {
  return max16(z, set16(std::numeric_limits<float>::lowest()));
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
    const Lanes p = exp16(sub(z, m));
    sum = add(sum, p);
    if constexpr (kEntropy) weighted = mul_add(p, finite_below(z), weighted);
  });
  const float s = sum16(sum);
  LogprobRow row{};
  row.lse = max + orrery::kernels::log_f32(s);
  row.logprob = logits[target] * inv_temperature - row.lse;
  if constexpr (kEntropy) row.entropy = row.lse - sum16(weighted) / s;
  return row;
}

LogprobRow logprob_row(const float* logits, int64_t vocab, int64_t target, float inv_temperature,
                       bool entropy) {
  return entropy ? logprob_row_of<true>(logits, vocab, target, inv_temperature)
                 : logprob_row_of<false>(logits, vocab, target, inv_temperature);
}

/// dz_j = fma(dlogp, [j = t] - p_j, -(dentropy p_j ((z_j - lse) + H))), then times 1 /
/// temperature.
void logprob_row_backward(float* logits, int64_t vocab, const LogprobRowGrad& g) {
  const float target_z = logits[g.target] * g.inv_temperature;
  const Lanes inv = set16(g.inv_temperature);
  const Lanes lse = set16(g.lse);
  const Lanes entropy = set16(g.entropy);
  const Lanes dlogp = set16(g.dlogp);
  const Lanes dentropy = set16(g.dentropy);
  for_each16(vocab, [&](int64_t j, auto io) HWY_ATTR {
    const Lanes z = mul(io.load(logits + j), inv);
    const Lanes p = exp16(sub(z, lse));
    const Lanes spread = add(sub(finite_below(z), lse), entropy);
    const Lanes q = mul(mul(dentropy, p), spread);
    io.store(logits + j, mul(mul_add(dlogp, sub(set16(0.0f), p), neg(q)), inv));
  });
  // The target's own element, where the bracket is 1.
  const float p = orrery::kernels::exp_f32(target_z - g.lse);
  const float spread =
      (std::max(target_z, std::numeric_limits<float>::lowest()) - g.lse) + g.entropy;
  const float q = g.dentropy * p * spread;
  logits[g.target] = std::fma(g.dlogp, 1.0f - p, -q) * g.inv_temperature;
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

void logprob_forward(const Context& ctx, const LogprobForward& op) {
  const Span<float> logprobs = host(op.logprobs), entropies = host(op.entropies),
                    lse = host(op.lse);
  const Span<const int32_t> targets = host(op.targets);
  const Span<const float> inv_temperature = host(op.inv_temperature);
  const int64_t vocab = op.logits.cols;
  parallel_for(ctx, op.logits.rows, kExpGrain / vocab, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t target = std::max(targets[i], 0);  // -1: the row gives NaN anyway
      const LogprobRow result = HWY_DYNAMIC_DISPATCH(logprob_row)(
          row(op.logits, i), vocab, target, inv_temperature[i], !entropies.empty());
      logprobs[i] = result.logprob;
      if (!entropies.empty()) entropies[i] = result.entropy;
      if (!lse.empty()) lse[i] = result.lse;
    }
  });
}

void logprob_backward(const Context& ctx, const LogprobBackward& op) {
  const Span<const int32_t> targets = host(op.targets);
  const Span<const float> lse = host(op.lse), entropies = host(op.entropies),
                          dlogp = host(op.dlogp), dentropy = host(op.dentropy),
                          inv_temperature = host(op.inv_temperature);
  const int64_t vocab = op.logits.cols;
  parallel_for(ctx, op.logits.rows, kExpGrain / vocab, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const LogprobRowGrad grad{.target = targets[i],
                                .lse = lse[i],
                                .entropy = dentropy.empty() ? 0.0f : entropies[i],
                                .dlogp = dlogp[i],
                                .dentropy = dentropy.empty() ? 0.0f : dentropy[i],
                                .inv_temperature = inv_temperature[i]};
      float* const logits = row(op.logits, i);
      if (grad.dlogp == 0.0f && grad.dentropy == 0.0f) {
        std::fill_n(logits, vocab, 0.0f);
      } else {
        HWY_DYNAMIC_DISPATCH(logprob_row_backward)(logits, vocab, grad);
      }
    }
  });
}

}  // namespace orrery::kernels::cpu
#endif
