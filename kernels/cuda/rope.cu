#include "kernels/cuda/rope.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rotation.cuh"

namespace orrery::kernels::cuda {
namespace {

/// kElements pairs of elements that rotate together.
template <class T, int kElements>
struct RotateBack {
  Mat<T> dx;
  Rotation rotation;
  int64_t groups;  ///< of kElements pairs of a token
  __device__ void operator()(int64_t i) const {
    const int64_t half = rotation.cos.cols;
    const int64_t token = i / groups, first = i % groups * kElements;
    rotate<true, kElements>(dx.data + token * dx.stride + first / half * 2 * half, first % half,
                            rotation, rotation.positions.data[token]);
  }
};

template <class T, int kElements>
void rotate_back(const Context& ctx, const RopeBackward& op) {
  const Mat<T> dx = op.dx.as<T>();
  const int64_t groups = op.heads * op.rotation.cos.cols / kElements;
  for_each_element(ctx, "rope_backward", dx.rows * groups,
                   RotateBack<T, kElements>{dx, op.rotation, groups});
}

}  // namespace

void rope_backward(const Context& ctx, const RopeBackward& op) {
  if (op.dx.dtype != DType::kBF16) return rotate_back<float, 1>(ctx, op);
  rotates_in_packets(op.dx, op.rotation) ? rotate_back<Bf16, kPacket>(ctx, op)
                                         : rotate_back<Bf16, 1>(ctx, op);
}

}  // namespace orrery::kernels::cuda
