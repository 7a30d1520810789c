#include "kernels/cuda/rope.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

/// kElements pairs of elements that rotate together: pair i is (token, head, element <
/// half).
template <bool kBack, class T, int kElements>
struct RotatePairs {
  Mat<T> x;
  const int32_t* positions;
  Mat<const float> cos, sin;
  int64_t groups;  ///< of kElements pairs of a token
  __device__ void operator()(int64_t i) const {
    const int64_t half = cos.cols;
    const int64_t token = i / groups, first = i % groups * kElements;
    const int64_t head = first / half, element = first % half;
    const int64_t position = positions[token];
    T* const at = x.data + token * x.stride + head * 2 * half + element;
    const Packet<kElements> a = load_packet<kElements>(at), b = load_packet<kElements>(at + half),
                            c = load_packet<kElements>(cos.data + position * cos.stride + element),
                            s = load_packet<kElements>(sin.data + position * sin.stride + element);
    Packet<kElements> low, high;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const float ac = __fmul_rn(a.at[e], c.at[e]), bc = __fmul_rn(b.at[e], c.at[e]);
      low.at[e] = __fmaf_rn(kBack ? b.at[e] : -b.at[e], s.at[e], ac);
      high.at[e] = __fmaf_rn(kBack ? -a.at[e] : a.at[e], s.at[e], bc);
    }
    store_packet(at, low);
    store_packet(at + half, high);
  }
};

template <bool kBack, class T, int kElements>
void rotate_pairs(const Context& ctx, const char* name, const Rope& op) {
  const Mat<T> x = op.x.as<T>();
  const int64_t groups = op.heads * op.cos.cols / kElements;
  for_each_element(ctx, name, x.rows * groups,
                   RotatePairs<kBack, T, kElements>{x, op.positions.data, op.cos, op.sin, groups});
}

template <bool kBack>
void rotate(const Context& ctx, const char* name, const Rope& op) {
  const int64_t half = op.cos.cols;
  if (op.x.dtype != DType::kBF16) {
    rotate_pairs<kBack, float, 1>(ctx, name, op);
  } else if (in_packets(op.x, half) && in_packets(op.cos, half) && in_packets(op.sin, half)) {
    rotate_pairs<kBack, Bf16, kPacket>(ctx, name, op);
  } else {
    rotate_pairs<kBack, Bf16, 1>(ctx, name, op);
  }
}

}  // namespace

void rope_forward(const Context& ctx, const Rope& op) { rotate<false>(ctx, "rope_forward", op); }
void rope_backward(const Context& ctx, const Rope& op) { rotate<true>(ctx, "rope_backward", op); }

}  // namespace orrery::kernels::cuda
