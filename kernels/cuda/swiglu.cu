#include "kernels/cuda/swiglu.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/scalar_math.h"

namespace orrery::kernels::cuda {
namespace {

/// 1 + exp(-g): what silu divides by.
__device__ float silu_divisor(float g) { return __fadd_rn(1.0f, exp_f32(-g)); }

struct SwigluElement {
  Mat<float> out;
  Mat<const float> gate_up;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / out.cols, column = i % out.cols;
    const float* const gate = gate_up.data + row * gate_up.stride + column;
    const float g = gate[0];
    out.data[row * out.stride + column] = __fmul_rn(__fdiv_rn(g, silu_divisor(g)), gate[out.cols]);
  }
};

/// d_gate_up may be gate_up: a thread reads both elements before it writes them.
struct SwigluGradient {
  Mat<float> d_gate_up;
  Mat<const float> dout, gate_up;
  __device__ void operator()(int64_t i) const {
    const int64_t f = dout.cols, row = i / f, column = i % f;
    const float* const gate = gate_up.data + row * gate_up.stride + column;
    float* const d_gate = d_gate_up.data + row * d_gate_up.stride + column;
    const float g = gate[0], u = gate[f];
    const float d = dout.data[row * dout.stride + column];
    const float s = __fdiv_rn(1.0f, silu_divisor(g));
    const float slope = __fmul_rn(s, __fmaf_rn(g, __fsub_rn(1.0f, s), 1.0f));
    d_gate[f] = __fmul_rn(d, __fmul_rn(g, s));
    d_gate[0] = __fmul_rn(__fmul_rn(d, u), slope);
  }
};

}  // namespace

void swiglu_forward(const Context& ctx, const SwigluForward& op) {
  const SwigluElement element{op.out.as<float>(), op.gate_up.as<const float>()};
  for_each_element(ctx, "swiglu_forward", element.out.size(), element);
}

void swiglu_backward(const Context& ctx, const SwigluBackward& op) {
  const SwigluGradient element{op.d_gate_up.as<float>(), op.dout.as<const float>(),
                               op.gate_up.as<const float>()};
  for_each_element(ctx, "swiglu_backward", element.dout.size(), element);
}

}  // namespace orrery::kernels::cuda
