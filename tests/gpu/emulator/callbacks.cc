// The functions that code compiled with -fsanitize=thread and -fsanitize=alignment
// calls; the sanitizers' libraries are not linked. Outside kernels they do what the
// access itself does, and no more.
#include "tests/gpu/emulator/memory.h"

namespace {

[[gnu::always_inline]] inline void touch(const void* data, size_t bytes, simt::Access kind) {
  if (simt::in_kernel) simt::access(data, bytes, kind);
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the names are the compilers'.
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void** at) { touch(at, sizeof *at, simt::Access::kRead); }
void __tsan_vptr_update(void** at, void*) { touch(at, sizeof *at, simt::Access::kWrite); }
void __tsan_read_range(void* at, size_t bytes) { touch(at, bytes, simt::Access::kRead); }
void __tsan_write_range(void* at, size_t bytes) { touch(at, bytes, simt::Access::kWrite); }

#define ORRERY_ACCESSES(n)                                                             \
  void __tsan_read##n(void* at) { touch(at, n, simt::Access::kRead); }                 \
  void __tsan_write##n(void* at) { touch(at, n, simt::Access::kWrite); }               \
  void __tsan_unaligned_read##n(const void* at) { touch(at, n, simt::Access::kRead); } \
  void __tsan_unaligned_write##n(void* at) { touch(at, n, simt::Access::kWrite); }
ORRERY_ACCESSES(1)
ORRERY_ACCESSES(2)
ORRERY_ACCESSES(4)
ORRERY_ACCESSES(8)
ORRERY_ACCESSES(16)
#undef ORRERY_ACCESSES

// Atomics: of kernels, and of host code in the same files (the guards of static
// variables are such). The strongest order is always right.
#define ORRERY_ATOMIC_OP(bits, T, name)                          \
  T __tsan_atomic##bits##_##name(volatile T* at, T value, int) { \
    touch(const_cast<T*>(at), sizeof(T), simt::Access::kAtomic); \
    return __atomic_##name(at, value, __ATOMIC_SEQ_CST);         \
  }
#define ORRERY_ATOMICS(bits, T)                                                                \
  T __tsan_atomic##bits##_load(const volatile T* at, int) {                                    \
    touch(const_cast<T*>(at), sizeof(T), simt::Access::kAtomic);                               \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                              \
  }                                                                                            \
  void __tsan_atomic##bits##_store(volatile T* at, T value, int) {                             \
    touch(const_cast<T*>(at), sizeof(T), simt::Access::kAtomic);                               \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                            \
  T __tsan_atomic##bits##_exchange(volatile T* at, T value, int) {                             \
    touch(const_cast<T*>(at), sizeof(T), simt::Access::kAtomic);                               \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                   \
  }                                                                                            \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* at, T* expected, T value, int, \
                                                    int) {                                     \
    touch(const_cast<T*>(at), sizeof(T), simt::Access::kAtomic);                               \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,           \
                                       __ATOMIC_SEQ_CST);                                      \
  }                                                                                            \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* at, T* expected, T value, int a, \
                                                  int b) {                                     \
    return __tsan_atomic##bits##_compare_exchange_strong(at, expected, value, a, b);           \
  }                                                                                            \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* at, T expected, T value, int a,     \
                                               int b) {                                        \
    __tsan_atomic##bits##_compare_exchange_strong(at, &expected, value, a, b);                 \
    return expected;                                                                           \
  }                                                                                            \
  ORRERY_ATOMIC_OP(bits, T, fetch_add)                                                         \
  ORRERY_ATOMIC_OP(bits, T, fetch_sub)                                                         \
  ORRERY_ATOMIC_OP(bits, T, fetch_and)                                                         \
  ORRERY_ATOMIC_OP(bits, T, fetch_or)                                                          \
  ORRERY_ATOMIC_OP(bits, T, fetch_xor)
ORRERY_ATOMICS(8, unsigned char)
ORRERY_ATOMICS(16, unsigned short)
ORRERY_ATOMICS(32, unsigned)
ORRERY_ATOMICS(64, unsigned long)
#undef ORRERY_ATOMICS
#undef ORRERY_ATOMIC_OP
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}

void __ubsan_handle_type_mismatch_v1_abort(void*, unsigned long at) {
  if (!simt::in_kernel) simt::fail_program("host code of a .cu file uses a misaligned pointer");
  char address[32];
  std::snprintf(address, sizeof address, "%p", reinterpret_cast<void*>(at));
  simt::fail_thread(std::string("uses the address ") + address +
                    ", which is not aligned as its type");
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
