// Highway for one target; see kernels/cpu/targets.h for how a kernel file includes it.
#include "hwy/highway.h"

// A CPU below our oldest target must get an error, not an illegal instruction.
#undef HWY_CHOOSE_FALLBACK
#define HWY_CHOOSE_FALLBACK(function) \
  &::orrery::kernels::UnsupportedCpu<decltype(&HWY_STATIC_DISPATCH(function))>::call

#if defined(ORRERY_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_SIMD_INL_H_
#undef ORRERY_KERNELS_CPU_SIMD_INL_H_
#else
#define ORRERY_KERNELS_CPU_SIMD_INL_H_
#endif

#if !HWY_NATIVE_FMA
#error "kernels/cpu/targets.h must come before Highway's headers: no fused multiply-add here"
#endif

namespace orrery::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
}  // namespace orrery::kernels::HWY_NAMESPACE

#endif  // per-target include guard
