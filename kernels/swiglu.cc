#include "kernels/swiglu.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/swiglu.h"

namespace orrery::kernels {

void swiglu_forward(const Context& ctx, Mat<float> out, Mat<const float> gate_up) {
  constexpr const char* kOp = "swiglu_forward";
  require_cpu(ctx, kOp);
  require_mat(kOp, "out", out, out.rows, out.cols);
  require_mat(kOp, "gate_up", gate_up, out.rows, 2 * out.cols);
  const ProfileOpScope profile(ctx, "swiglu", 0, f32_bytes(3 * out.size()));
  swiglu_forward_cpu(ctx, out, gate_up);
}

void swiglu_backward(const Context& ctx, Mat<float> d_gate_up, Mat<const float> dout,
                     Mat<const float> gate_up) {
  constexpr const char* kOp = "swiglu_backward";
  require_cpu(ctx, kOp);
  require_mat(kOp, "dout", dout, dout.rows, dout.cols);
  require_mat(kOp, "gate_up", gate_up, dout.rows, 2 * dout.cols);
  require_mat(kOp, "d_gate_up", d_gate_up, dout.rows, 2 * dout.cols);
  const ProfileOpScope profile(ctx, "swiglu backward", 0, f32_bytes(5 * dout.size()));
  swiglu_backward_cpu(ctx, d_gate_up, dout, gate_up);
}

}  // namespace orrery::kernels
