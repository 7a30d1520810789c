#include "kernels/cuda/rope.h"

#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

/// A pair of elements that rotate together: pair i is (token, head, element < half).
template <bool kBack>
struct RotatePair {
  Mat<float> x;
  const int32_t* positions;
  Mat<const float> cos, sin;
  int64_t pairs;  ///< of a token
  __device__ void operator()(int64_t i) const {
    const int64_t half = cos.cols;
    const int64_t token = i / pairs, in_token = i % pairs;
    const int64_t head = in_token / half, element = in_token % half;
    const int64_t position = positions[token];
    float* const at = x.data + token * x.stride + head * 2 * half + element;
    const float a = at[0], b = at[half];
    const float c = cos.data[position * cos.stride + element];
    const float s = sin.data[position * sin.stride + element];
    const float ac = __fmul_rn(a, c), bc = __fmul_rn(b, c);
    at[0] = __fmaf_rn(kBack ? b : -b, s, ac);
    at[half] = __fmaf_rn(kBack ? -a : a, s, bc);
  }
};

template <bool kBack>
void rotate(const Context& ctx, const char* name, const Rope& op) {
  const Mat<float> x = op.x.as<float>();
  const int64_t pairs = op.heads * op.cos.cols;
  for_each_element(ctx, name, x.rows * pairs,
                   RotatePair<kBack>{x, op.positions.data, op.cos, op.sin, pairs});
}

}  // namespace

void rope_forward(const Context& ctx, const Rope& op) { rotate<false>(ctx, "rope_forward", op); }
void rope_backward(const Context& ctx, const Rope& op) { rotate<true>(ctx, "rope_backward", op); }

}  // namespace orrery::kernels::cuda
