#include "kernels/cuda/swiglu.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/scalar_math.h"

namespace orrery::kernels::cuda {
namespace {

/// 1 + exp(-g): what silu divides by.
__device__ float silu_divisor(float g) { return __fadd_rn(1.0f, exp_f32(-g)); }

template <class T, int kElements>
struct SwigluElements {
  Mat<T> out;
  Mat<const T> gate_up;
  __device__ void operator()(int64_t i) const {
    const int64_t first = i * kElements, row = first / out.cols, column = first % out.cols;
    const T* const gate = gate_up.data + row * gate_up.stride + column;
    const Packet<kElements> g = load_packet<kElements>(gate),
                            u = load_packet<kElements>(gate + out.cols);
    Packet<kElements> y;
#pragma unroll
    for (int e = 0; e < kElements; ++e)
      y.at[e] = __fmul_rn(__fdiv_rn(g.at[e], silu_divisor(g.at[e])), u.at[e]);
    store_packet(out.data + row * out.stride + column, y);
  }
};

/// d_gate_up may be gate_up: a thread reads an element of both before it writes them.
template <class T, int kElements>
struct SwigluGradients {
  Mat<T> d_gate_up;
  Mat<const T> dout, gate_up;
  __device__ void operator()(int64_t i) const {
    const int64_t f = dout.cols, first = i * kElements, row = first / f, column = first % f;
    const T* const gate = gate_up.data + row * gate_up.stride + column;
    T* const d_gate = d_gate_up.data + row * d_gate_up.stride + column;
    const Packet<kElements> gates = load_packet<kElements>(gate),
                            ups = load_packet<kElements>(gate + f),
                            d_outs = load_packet<kElements>(dout.data + row * dout.stride + column);
    Packet<kElements> d_gates, d_ups;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const float g = gates.at[e], d = d_outs.at[e];
      const float s = __fdiv_rn(1.0f, silu_divisor(g));
      const float slope = __fmul_rn(s, __fmaf_rn(g, __fsub_rn(1.0f, s), 1.0f));
      d_ups.at[e] = __fmul_rn(d, __fmul_rn(g, s));
      d_gates.at[e] = __fmul_rn(__fmul_rn(d, ups.at[e]), slope);
    }
    store_packet(d_gate + f, d_ups);
    store_packet(d_gate, d_gates);
  }
};

template <class T, int kElements>
void forward(const Context& ctx, const SwigluForward& op) {
  for_each_element(ctx, "swiglu_forward", op.out.size() / kElements,
                   SwigluElements<T, kElements>{op.out.as<T>(), op.gate_up.as<const T>()});
}

template <class T, int kElements>
void backward(const Context& ctx, const SwigluBackward& op) {
  for_each_element(ctx, "swiglu_backward", op.dout.size() / kElements,
                   SwigluGradients<T, kElements>{op.d_gate_up.as<T>(), op.dout.as<const T>(),
                                                 op.gate_up.as<const T>()});
}

}  // namespace

void swiglu_forward(const Context& ctx, const SwigluForward& op) {
  const int64_t f = op.out.cols;
  if (op.out.dtype != DType::kBF16) {
    forward<float, 1>(ctx, op);
  } else if (in_packets(op.out, f) && in_packets(op.gate_up, f)) {
    forward<Bf16, kPacket>(ctx, op);
  } else {
    forward<Bf16, 1>(ctx, op);
  }
}

void swiglu_backward(const Context& ctx, const SwigluBackward& op) {
  const int64_t f = op.dout.cols;
  if (op.dout.dtype != DType::kBF16) {
    backward<float, 1>(ctx, op);
  } else if (in_packets(op.d_gate_up, f) && in_packets(op.dout, f) && in_packets(op.gate_up, f)) {
    backward<Bf16, kPacket>(ctx, op);
  } else {
    backward<Bf16, 1>(ctx, op);
  }
}

}  // namespace orrery::kernels::cuda
