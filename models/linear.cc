#include "models/linear.h"

#include "core/error.h"

namespace orrery::models {

Linear::Linear(const ParameterGroup& weight, const ParameterGroup& bias,
               Vec<const float> parameters, DType dtype)
    : weight_(weight),
      bias_(bias),
      weight_values_(weight.mat(parameters)),
      bias_values_(bias.vec(parameters)),
      dtype_(dtype) {
  ORRERY_CHECK(bias.empty() || bias.rows() == weight.rows(), "a bias of {} for {} outputs",
               bias.rows(), weight.rows());
}

size_t Linear::packed_bytes(Device device) const {
  return kernels::packed_weight_bytes(device, dtype_, weight_.rows(), weight_.cols());
}

void Linear::pack(const Context& ctx, void* memory) {
  packed_ =
      kernels::pack_weight(ctx, {.weight = weight_values_, .dtype = dtype_, .memory = memory});
}

void Linear::forward(const Context& ctx, ActMat y, ConstActMat x) const {
  kernels::matmul_forward(ctx, {.y = y, .x = x, .weight = packed_, .bias = bias_values_});
}

void Linear::backward(const Context& ctx, const Backward& op, const FlatView& gradients) const {
  if (!bias_.empty()) {
    kernels::bias_backward(ctx, {.db = bias_.vec(gradients),
                                 .dy = op.dy,
                                 .accumulate = op.accumulate,
                                 .run_ends = op.sum_runs});
  }
  kernels::matmul_backward_weight(ctx, {.dw = weight_.mat(gradients),
                                        .dy = op.dy,
                                        .x = op.x,
                                        .run_ends = op.run_ends,
                                        .accumulate = op.accumulate});
  kernels::matmul_backward_input(ctx, {.dx = op.dx, .dy = op.dy, .weight = packed_});
}

}  // namespace orrery::models
