// The rotation of kernels/rope.h, in place, kElements pairs of elements at a time.
#pragma once

#include <cstdint>

#include "kernels/cuda/elements.cuh"
#include "kernels/rope.h"

namespace orrery::kernels::cuda {

/// Neighbours in the lower half of a head, and those of the upper half that rotate with
/// them.
template <int kElements>
struct Halves {
  Packet<kElements> low, high;
};

/// Rotates the elements of a head that begin at `element` of each half by the angles of
/// a position, kBack: by the inverse ones. Gives what it stored, in f32.
template <bool kBack, int kElements, class T>
__device__ Halves<kElements> rotate(T* head, int64_t element, const Rotation& rotation,
                                    int64_t position) {
  const Mat<const float>&cos = rotation.cos, &sin = rotation.sin;
  T* const low = head + element;
  T* const high = low + cos.cols;
  const Packet<kElements> a = load_packet<kElements>(low), b = load_packet<kElements>(high),
                          c = load_packet<kElements>(cos.data + position * cos.stride + element),
                          s = load_packet<kElements>(sin.data + position * sin.stride + element);
  Halves<kElements> to;
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    const float ac = __fmul_rn(a.at[e], c.at[e]), bc = __fmul_rn(b.at[e], c.at[e]);
    to.low.at[e] = __fmaf_rn(kBack ? b.at[e] : -b.at[e], s.at[e], ac);
    to.high.at[e] = __fmaf_rn(kBack ? -a.at[e] : a.at[e], s.at[e], bc);
  }
  store_packet(low, to.low);
  store_packet(high, to.high);
  return to;
}

/// Whether the halves of heads in rows of x, and their angles, are packets.
inline bool rotates_in_packets(const ConstActMat& x, const Rotation& rotation) {
  const int64_t half = rotation.cos.cols;
  return in_packets(x, half) && in_packets(rotation.cos, half) && in_packets(rotation.sin, half);
}

}  // namespace orrery::kernels::cuda
