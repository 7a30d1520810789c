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
  require_f32_or_bf16(kOp, "out", out.dtype);
  require_dtype(kOp, "gate_up", op.gate_up.dtype, out.dtype);
  const ProfileOpScope profile(ctx, "swiglu", 0, 3 * mat_bytes(out));
  dispatch<cpu::swiglu_forward, cuda::swiglu_forward>(ctx, kOp, op);
}

void swiglu_backward(const Context& ctx, const SwigluBackward& op) {
  constexpr const char* kOp = "swiglu_backward";
  const ConstActMat& dout = op.dout;
  require_mat(kOp, "dout", dout, dout.rows, dout.cols);
  require_mat(kOp, "gate_up", op.gate_up, dout.rows, 2 * dout.cols);
  require_mat(kOp, "d_gate_up", op.d_gate_up, dout.rows, 2 * dout.cols);
  require_f32_or_bf16(kOp, "dout", dout.dtype);
  require_dtype(kOp, "gate_up", op.gate_up.dtype, dout.dtype);
  require_dtype(kOp, "d_gate_up", op.d_gate_up.dtype, dout.dtype);
  const ProfileOpScope profile(ctx, "swiglu backward", 0, 5 * mat_bytes(dout));
  dispatch<cpu::swiglu_backward, cuda::swiglu_backward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
