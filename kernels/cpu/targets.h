// Which instruction sets the CPU kernels are built for: AVX2 + FMA and AVX-512 on
// x86-64, NEON on 64-bit Arm. Include it before any Highway header. Each
// kernels/cpu/<op>.cc is compiled once per target and dispatched at run time:
//
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "kernels/cpu/swiglu.cc"  // this file
//   #include "kernels/cpu/targets.h"
//   // Includes this file once for each of the other targets.
//   #include "hwy/foreach_target.h"
//   #include "kernels/cpu/simd-inl.h"
//
//   HWY_BEFORE_NAMESPACE();
//   namespace orrery::kernels::HWY_NAMESPACE {
//   void swiglu_rows(float* y, const float* x, int64_t count) {
//     const hn::ScalableTag<float> d;  // 16, 8 or 4 lanes
//     ...                              // hn::LoadU, hn::MulAdd, hn::StoreU
//   }
//   }  // namespace orrery::kernels::HWY_NAMESPACE
//   HWY_AFTER_NAMESPACE();
//
//   #if HWY_ONCE
//   namespace orrery::kernels {
//   HWY_EXPORT(swiglu_rows);
//   void swiglu_forward(...) { HWY_DYNAMIC_DISPATCH(swiglu_rows)(y, x, count); }
//   }  // namespace orrery::kernels
//   #endif
//
// Code outside HWY_BEFORE_NAMESPACE/HWY_AFTER_NAMESPACE runs on the baseline (plain
// x86-64), so templates that a kernel is to inline must stand inside. Tests run every
// target with kernels/numerics.h:
//
//   for (const auto& target : supported_cpu_targets()) {
//     set_cpu_target(target);
//     ...
//   }
//   set_cpu_target("best");
#pragma once

// Highway wants a baseline target that is always compiled. Its scalar one has no fused
// multiply-add (other bits) and no vectors, so the baseline is the oldest target we
// support; on a CPU without it every dispatch throws (simd-inl.h).
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_AVX2
#define HWY_DISABLED_TARGETS (~(HWY_AVX2 | HWY_AVX3))
#elif defined(__aarch64__)
#define HWY_BASELINE_TARGETS HWY_NEON
#define HWY_DISABLED_TARGETS (~HWY_NEON)
#else
#error "Orrery's CPU kernels need x86-64 or 64-bit Arm"
#endif

#include "hwy/detect_targets.h"

namespace orrery::kernels {

/// Throws the Error of require_instruction_sets(): what a dispatch does on a CPU that
/// has none of the targets.
[[noreturn]] void fail_unsupported_cpu();

/// Stands in a dispatch table, in place of `Function`, for CPUs that have none of the
/// targets.
template <class Function>
struct UnsupportedCpu;
template <class Result, class... Args>
struct UnsupportedCpu<Result (*)(Args...)> {
  static Result call(Args... /*unused*/) { fail_unsupported_cpu(); }
};

}  // namespace orrery::kernels
