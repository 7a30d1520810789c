// Subnormals flushed to zero, as the products of bf16 operands want it
// (docs/numerics.md, "Pairs"). The mode is the thread's, and compilers move arithmetic
// across its change. So a FlushScope stands alone in a function that is not inlined,
// around a call of another one that holds the whole kernel:
//
//   HWY_NOINLINE void kernel_flushed(const Args& args) {
//     const cpu::FlushScope flush;
//     kernel(args);  // not inlined either
//   }
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace orrery::kernels::cpu {

class FlushScope {
 public:
  FlushScope() : before_(mode()) { set_mode(before_ | kFlush); }
  ~FlushScope() { set_mode(before_); }
  FlushScope(const FlushScope&) = delete;
  FlushScope& operator=(const FlushScope&) = delete;

 private:
#if defined(__x86_64__)
  using Mode = uint32_t;
  static constexpr Mode kFlush = 0x8040;  // FTZ, DAZ
  static Mode mode() { return _mm_getcsr(); }
  static void set_mode(Mode mode) { _mm_setcsr(mode); }
#else
  using Mode = uint64_t;
  static constexpr Mode kFlush = Mode{1} << 24;  // FZ
  static Mode mode() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode)::"memory");
    return mode;
  }
  static void set_mode(Mode mode) { asm volatile("msr fpcr, %0" ::"r"(mode) : "memory"); }
#endif
  Mode before_;
};

}  // namespace orrery::kernels::cpu
