// What both backwards of attention, in f32 and in bf16, take for one SIMD target.
#include "kernels/cpu/attention-inl.h"

#if defined(ORRERY_KERNELS_CPU_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_ATTENTION_BACKWARD_INL_H_
#undef ORRERY_KERNELS_CPU_ATTENTION_BACKWARD_INL_H_
#else
#define ORRERY_KERNELS_CPU_ATTENTION_BACKWARD_INL_H_
#endif

#include <algorithm>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace attention {

/// A tile of keys, and how many of them a query of the block sees.
struct KeyTile {
  int64_t keys = 0;
  int64_t first_row = 0;  ///< the tile's first row in its segment
  bool own = false;
  HWY_INLINE int64_t visible(int64_t row) const {
    return own ? std::clamp<int64_t>(row - first_row + 1, 0, keys) : keys;
  }
};

/// Sum over head_dim of a * b in 16 lanes, each a chain.
HWY_INLINE float lanes_dot(const float* a, const float* b, int64_t count) {
  const D d;
  constexpr int kParts = 16 / kLanes;
  V acc[kParts];
  for (int v = 0; v < kParts; ++v) acc[v] = hn::Zero(d);
  int64_t x = 0;
  for (; x + 16 <= count; x += 16) {
    for (int v = 0; v < kParts; ++v) {
      acc[v] =
          hn::MulAdd(hn::LoadU(d, a + x + v * kLanes), hn::LoadU(d, b + x + v * kLanes), acc[v]);
    }
  }
  for (int v = 0; v < kParts; ++v) {
    const int64_t n = std::clamp<int64_t>(count - x - v * kLanes, 0, kLanes);
    if (n == 0) break;
    const V sum =
        hn::MulAdd(load_part(a + x + v * kLanes, n), load_part(b + x + v * kLanes, n), acc[v]);
    acc[v] = hn::IfThenElse(hn::FirstN(d, n), sum, acc[v]);
  }
  return fold_lanes(d, acc);
}

}  // namespace attention
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
