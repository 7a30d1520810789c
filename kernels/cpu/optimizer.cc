#include "kernels/cpu/optimizer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

void adamw_elements(float* w, float* m, float* v, const float* grad, int64_t count,
                    const AdamWConstants& c) {
  const Lanes beta1 = set16(c.beta1), one_minus_beta1 = set16(c.one_minus_beta1);
  const Lanes beta2 = set16(c.beta2), one_minus_beta2 = set16(c.one_minus_beta2);
  const Lanes eps = set16(c.eps), grad_scale = set16(c.grad_scale), step_size = set16(c.step_size);
  const Lanes inv_sqrt_bias2 = set16(c.inv_sqrt_bias2), decay = set16(c.decay);
  for_each16(count, [&](int64_t i, auto io) HWY_ATTR {
    const Lanes g = mul(io.load(grad + i), grad_scale);
    const Lanes new_m = mul_add(beta1, io.load(m + i), mul(one_minus_beta1, g));
    const Lanes new_v = mul_add(beta2, io.load(v + i), mul(mul(one_minus_beta2, g), g));
    const Lanes update = div(new_m, mul_add(sqrt16(new_v), inv_sqrt_bias2, eps));
    const Lanes old_w = io.load(w + i);
    io.store(m + i, new_m);
    io.store(v + i, new_v);
    io.store(w + i, sub(old_w, mul_add(step_size, update, mul(decay, old_w))));
  });
}

float sum_of_squares(const float* x, int64_t count) {
  Lanes acc = set16(0.0f);
  for_each16(count, [&](int64_t i, auto io) HWY_ATTR {
    const Lanes v = io.load(x + i);
    acc = mul_add(v, v, acc);
  });
  return sum16(acc);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/parallel.h"
#include "kernels/checks.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(adamw_elements);
HWY_EXPORT(sum_of_squares);

void adamw_step(const Context& ctx, const AdamwStep& op) {
  const AdamWConstants constants = adamw_constants(op);
  parallel_for(ctx, op.w.size, kExpGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw_elements)
    (op.w.data + begin, op.m.data + begin, op.v.data + begin, op.grad.data + begin, end - begin,
     constants);
  });
}

void sum_squares_chunks(const Context& ctx, const SumSquaresChunks& op) {
  parallel_for(ctx, op.sums.size, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = c * kNormChunk;
      const int64_t count = std::min(kNormChunk, op.x.size - first);
      op.sums.data[c] = HWY_DYNAMIC_DISPATCH(sum_of_squares)(op.x.data + first, count);
    }
  });
}

}  // namespace orrery::kernels::cpu
#endif
