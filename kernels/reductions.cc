#include "kernels/reductions.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/reductions.h"
#include "kernels/cuda/reductions.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {

FletcherSums checksum(const Context& ctx, const Checksum& op) {
  constexpr const char* kOp = "checksum";
  require_vec(kOp, "x", op.x, op.x.size);
  const ProfileOpScope profile(ctx, kOp, 0, f32_bytes(op.x.size));
  return dispatch<cpu::checksum, cuda::checksum>(ctx, kOp, op);
}

float max_abs(const Context& ctx, const MaxAbs& op) {
  constexpr const char* kOp = "max_abs";
  require_vec(kOp, "x", op.x, op.x.size);
  const ProfileOpScope profile(ctx, kOp, 0, f32_bytes(op.x.size));
  return dispatch<cpu::max_abs, cuda::max_abs>(ctx, kOp, op);
}

}  // namespace orrery::kernels
