// The log-prob of the class dot16-rz25: sums over blocks of 128 tokens, folded in order
// (docs/numerics.md, "Sums that are no products").
#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cpu/logprob.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dot16_logprob.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

using cpu::LogprobRow;

/// Lanes 0 .. n/2 - 1 and n/2 .. n - 1.
template <class V>
HWY_INLINE auto lower(V v) {
  return hn::LowerHalf(hn::Half<hn::DFromV<V>>(), v);
}
template <class T>
HWY_INLINE T lower(Halves<T> v) {
  return v.lo;
}
template <class V>
HWY_INLINE auto upper(V v) {
  return hn::UpperHalf(hn::Half<hn::DFromV<V>>(), v);
}
template <class T>
HWY_INLINE T upper(Halves<T> v) {
  return v.hi;
}

/// The four sums of a block in eight lanes, sum q in lanes 2q and 2q + 1.
using FourSums = decltype(lower(Lanes()));

HWY_INLINE FourSums plus(FourSums a, FourSums b) {
  return each([](auto x, auto y) HWY_ATTR { return hn::Add(x, y); }, a, b);
}

/// Adds the terms of 16 tokens: the pairs of the first eight, then of the other eight.
HWY_INLINE FourSums add_terms(FourSums sums, Lanes terms) {
  const Lanes pairs = each([](auto x) HWY_ATTR { return hn::Add(x, hn::Shuffle2301(x)); }, terms);
  return plus(plus(sums, lower(pairs)), upper(pairs));
}

/// (sum 0 + sum 1) + (sum 2 + sum 3).
HWY_INLINE float fold_four(FourSums sums) {
  const FourSums twos = each([](auto x) HWY_ATTR { return hn::Add(x, hn::Shuffle1032(x)); }, sums);
  return hn::GetLane(hn::Add(lower(twos), upper(twos)));
}

/// m, s and t of a block, or of all blocks so far.
struct PolicySums {
  float max, sum, weighted;
};

/// The sums of `count` tokens, at most a block. A block without a finite logit has s =
/// 0, or NaN where a logit is NaN.
template <bool kEntropy>
HWY_INLINE PolicySums block_sums(const float* logits, int64_t count, Lanes inv) {
  constexpr float kMinusInf = -std::numeric_limits<float>::infinity();
  Lanes largest = set16(kMinusInf);
  for_each16(count, [&](int64_t j, auto io) HWY_ATTR {
    largest = max16(mul(io.load(logits + j, kMinusInf), inv), largest);
  });
  const float max = largest16(largest);
  // Where all are -inf they must stay so: -inf less -inf would be NaN.
  const Lanes m = set16(max == kMinusInf ? 0.0f : max);
  // A d of -inf counts as the lowest finite number, so that p d is 0 too.
  const Lanes lowest = set16(std::numeric_limits<float>::lowest());
  FourSums sum = lower(set16(0.0f)), weighted = sum;
  for_each16(count, [&](int64_t j, auto io) HWY_ATTR {
    const Lanes d = sub(mul(io.load(logits + j, kMinusInf), inv), m);
    const Lanes p = exp16(d);
    sum = add_terms(sum, p);
    if constexpr (kEntropy) weighted = add_terms(weighted, mul(p, max16(d, lowest)));
  });
  return {max, fold_four(sum), kEntropy ? fold_four(weighted) : 0.0f};
}

/// The sums of both. What has no token yet (-inf, 0, 0) leaves the block's as they are.
HWY_INLINE PolicySums merged(const PolicySums& a, const PolicySums& b) {
  const hn::CappedTag<float, 4> d;
  const auto both = [&](float x, float y)
                        HWY_ATTR { return hn::InterleaveLower(d, hn::Set(d, x), hn::Set(d, y)); };
  const auto total = [&](auto v) HWY_ATTR { return hn::GetLane(hn::Add(v, hn::Shuffle2301(v))); };
  const float max = a.max > b.max ? a.max : b.max;
  const auto below = both(a.max - max, b.max - max);
  const auto scale = exp_f32(d, below);
  const auto sum = both(a.sum, b.sum);
  const auto weighted = hn::MulAdd(below, sum, both(a.weighted, b.weighted));
  // Far enough below, `weighted` is infinite, which times 0 would be NaN.
  const auto scaled = hn::IfThenZeroElse(hn::Eq(scale, hn::Zero(d)), hn::Mul(scale, weighted));
  return {max, total(hn::Mul(scale, sum)), total(scaled)};
}

template <bool kEntropy>
HWY_INLINE LogprobRow dot16_row(const float* logits, int64_t vocab, int64_t target,
                                float inv_temperature) {
  constexpr int64_t kBlock = 128;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Lanes inv = set16(inv_temperature);
  PolicySums all{-std::numeric_limits<float>::infinity(), 0.0f, 0.0f};
  for (int64_t j = 0; j < vocab; j += kBlock) {
    const PolicySums block = block_sums<kEntropy>(logits + j, std::min(kBlock, vocab - j), inv);
    if (block.sum != 0.0f) all = merged(all, block);
  }
  if (all.sum == 0.0f) all.sum = kNan;  // no token can be drawn
  LogprobRow row{};
  row.max = all.max + 0.0f;  // no -0: which of two zeros max16 gives depends on the CPU
  row.log_sum = orrery::kernels::log_f32(all.sum);
  row.logprob = (logits[target] * inv_temperature - row.max) - row.log_sum;
  if constexpr (kEntropy) row.entropy = row.log_sum - all.weighted / all.sum;
  return row;
}

LogprobRow dot16_logprob_row(const float* logits, int64_t vocab, int64_t target,
                             float inv_temperature, bool entropy) {
  return entropy ? dot16_row<true>(logits, vocab, target, inv_temperature)
                 : dot16_row<false>(logits, vocab, target, inv_temperature);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace orrery::kernels::cpu {
HWY_EXPORT(dot16_logprob_row);

LogprobRow dot16_logprob_row(const float* logits, int64_t vocab, int64_t target,
                             float inv_temperature, bool entropy) {
  return HWY_DYNAMIC_DISPATCH(dot16_logprob_row)(logits, vocab, target, inv_temperature, entropy);
}

}  // namespace orrery::kernels::cpu
#endif
