#include "kernels/cpu/swiglu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/swiglu.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// 1 + exp(-g): what silu divides by.
HWY_INLINE Lanes silu_divisor(Lanes g) { return add(set16(1.0f), exp16(neg(g))); }

void swiglu_row(float* out, const float* gate, const float* up, int64_t count) {
  for_each16(count, [&](int64_t i, auto io) HWY_ATTR {
    const Lanes g = io.load(gate + i);
    io.store(out + i, mul(div(g, silu_divisor(g)), io.load(up + i)));
  });
}

void swiglu_row_backward(float* dgate, float* dup, const float* dout, const float* gate,
                         const float* up, int64_t count) {
  const Lanes one = set16(1.0f);
  for_each16(count, [&](int64_t i, auto io) HWY_ATTR {
    const Lanes g = io.load(gate + i);
    const Lanes u = io.load(up + i);
    const Lanes d = io.load(dout + i);
    const Lanes s = div(one, silu_divisor(g));  // sigmoid
    io.store(dup + i, mul(d, mul(g, s)));
    const Lanes slope = mul(s, mul_add(g, sub(one, s), one));
    io.store(dgate + i, mul(mul(d, u), slope));
  });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/parallel.h"
#include "kernels/checks.h"
#include "kernels/cpu/host.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(swiglu_row);
HWY_EXPORT(swiglu_row_backward);

void swiglu_forward(const Context& ctx, const SwigluForward& op) {
  const auto out = op.out.as<float>();
  const auto gate_up = op.gate_up.as<const float>();
  const int64_t f = out.cols;
  parallel_for(ctx, out.rows, kExpGrain / std::max<int64_t>(f, 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* gate = row(gate_up, i);
      HWY_DYNAMIC_DISPATCH(swiglu_row)(row(out, i), gate, gate + f, f);
    }
  });
}

void swiglu_backward(const Context& ctx, const SwigluBackward& op) {
  const auto d_gate_up = op.d_gate_up.as<float>();
  const auto dout = op.dout.as<const float>(), gate_up = op.gate_up.as<const float>();
  const int64_t f = dout.cols;
  parallel_for(ctx, dout.rows, kExpGrain / std::max<int64_t>(f, 1),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   float* dgate = row(d_gate_up, i);
                   const float* gate = row(gate_up, i);
                   HWY_DYNAMIC_DISPATCH(swiglu_row_backward)
                   (dgate, dgate + f, row(dout, i), gate, gate + f, f);
                 }
               });
}

}  // namespace orrery::kernels::cpu
#endif
