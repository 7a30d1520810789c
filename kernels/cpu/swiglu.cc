#include "kernels/cpu/swiglu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/swiglu.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// 1 + exp(-g): what silu divides by.
HWY_INLINE Lanes silu_divisor(Lanes g) { return add(set16(1.0f), exp16(neg(g))); }

template <class T>
HWY_INLINE void forward_row(T* out, const T* gate, const T* up, int64_t count) {
  for_each16(count, [&](int64_t i, auto io) HWY_ATTR {
    const Lanes g = io.load(gate + i);
    io.store(out + i, mul(div(g, silu_divisor(g)), io.load(up + i)));
  });
}

template <class T>
HWY_INLINE void backward_row(T* dgate, T* dup, const T* dout, const T* gate, const T* up,
                             int64_t count) {
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

template <class T>
HWY_INLINE void forward_rows(const SwigluForward& op, int64_t begin, int64_t end) {
  const auto out = op.out.as<T>();
  const auto gate_up = op.gate_up.as<const T>();
  for (int64_t i = begin; i < end; ++i) {
    const T* const gate = cpu::row(gate_up, i);
    forward_row(cpu::row(out, i), gate, gate + out.cols, out.cols);
  }
}

template <class T>
HWY_INLINE void backward_rows(const SwigluBackward& op, int64_t begin, int64_t end) {
  const auto d_gate_up = op.d_gate_up.as<T>();
  const auto dout = op.dout.as<const T>(), gate_up = op.gate_up.as<const T>();
  for (int64_t i = begin; i < end; ++i) {
    T* const dgate = cpu::row(d_gate_up, i);
    const T* const gate = cpu::row(gate_up, i);
    backward_row(dgate, dgate + dout.cols, cpu::row(dout, i), gate, gate + dout.cols, dout.cols);
  }
}

void swiglu_rows(const SwigluForward& op, int64_t begin, int64_t end) {
  op.out.dtype == DType::kBF16 ? forward_rows<Bf16>(op, begin, end)
                               : forward_rows<float>(op, begin, end);
}

void swiglu_rows_backward(const SwigluBackward& op, int64_t begin, int64_t end) {
  op.dout.dtype == DType::kBF16 ? backward_rows<Bf16>(op, begin, end)
                                : backward_rows<float>(op, begin, end);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/parallel.h"
#include "kernels/checks.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(swiglu_rows);
HWY_EXPORT(swiglu_rows_backward);

void swiglu_forward(const Context& ctx, const SwigluForward& op) {
  const int64_t grain = kExpGrain / std::max<int64_t>(op.out.cols, 1);
  parallel_for(ctx, op.out.rows, grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(swiglu_rows)(op, begin, end);
  });
}

void swiglu_backward(const Context& ctx, const SwigluBackward& op) {
  const int64_t grain = kExpGrain / std::max<int64_t>(op.dout.cols, 1);
  parallel_for(ctx, op.dout.rows, grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(swiglu_rows_backward)(op, begin, end);
  });
}

}  // namespace orrery::kernels::cpu
#endif
