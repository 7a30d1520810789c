// CPU half of kernels/rmsnorm.h; arguments are already checked. A row of a matrix is
// one head of a token.
#pragma once

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

struct RmsnormForward {
  Heads<float> y;
  Mat<float> rstd;  ///< not wanted where its data is null
  Heads<const float> x;
  Heads<const float> delta;  ///< where its data is null there is no residual, and no h
  Heads<float> h;
  const float* weight = nullptr;
  float eps = 0.0f;
};

struct RmsnormBackward {
  Heads<float> dx;
  float* dweight = nullptr;
  Heads<const float> dy;
  Heads<const float> x;
  Mat<const float> rstd;
  const float* weight = nullptr;
  bool accumulate = false;  ///< dx += instead of dx =
};

void rmsnorm_forward_cpu(const Context& ctx, const RmsnormForward& op);
void rmsnorm_backward_cpu(const Context& ctx, const RmsnormBackward& op);

}  // namespace orrery::kernels
