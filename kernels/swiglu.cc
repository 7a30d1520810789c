#include "kernels/swiglu.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/swiglu.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {

void swiglu_forward(const Context& ctx, const SwigluForward& op) {
  constexpr const char* kOp = "swiglu_forward";
  const ActMat& out = op.out;
  require_mat(kOp, "out", out, out.rows, out.cols);
  require_mat(kOp, "gate_up", op.gate_up, out.rows, 2 * out.cols);
  const ProfileOpScope profile(ctx, "swiglu", 0, f32_bytes(3 * out.size()));
  dispatch<cpu::swiglu_forward, cuda::swiglu_forward>(ctx, kOp, op);
}

void swiglu_backward(const Context& ctx, const SwigluBackward& op) {
  constexpr const char* kOp = "swiglu_backward";
  const ConstActMat& dout = op.dout;
  require_mat(kOp, "dout", dout, dout.rows, dout.cols);
  require_mat(kOp, "gate_up", op.gate_up, dout.rows, 2 * dout.cols);
  require_mat(kOp, "d_gate_up", op.d_gate_up, dout.rows, 2 * dout.cols);
  const ProfileOpScope profile(ctx, "swiglu backward", 0, f32_bytes(5 * dout.size()));
  dispatch<cpu::swiglu_backward, cuda::swiglu_backward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
