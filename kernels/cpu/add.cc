#include "kernels/cpu/add.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/add.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

void add_elements(float* y, const float* a, const float* b, int64_t count) {
  for_each16(count, [&](int64_t i, auto io)
                        HWY_ATTR { io.store(y + i, add(io.load(a + i), io.load(b + i))); });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels {
HWY_EXPORT(add_elements);

void add_cpu(float* y, const float* a, const float* b, int64_t count) {
  HWY_DYNAMIC_DISPATCH(add_elements)(y, a, b, count);
}

}  // namespace orrery::kernels
#endif
