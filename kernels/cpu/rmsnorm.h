// CPU half of kernels/rmsnorm.h; arguments are already checked.
#pragma once

#include "kernels/rmsnorm.h"

namespace orrery::kernels::cpu {

void rmsnorm_forward(const Context& ctx, const RmsnormForward& op);
void rmsnorm_residual_forward(const Context& ctx, const RmsnormResidualForward& op);
void rmsnorm_backward(const Context& ctx, const RmsnormBackward& op);

/// What the kernels of both forward ops walk over.
struct NormVectors {
  ActMat y;
  Mat<float> h;  ///< of the residual form only, as delta
  ConstActMat x;
  Mat<const float> delta;  ///< where its data is null there is no residual
  int64_t heads = 1;
  float* rstd = nullptr;  ///< [tokens * heads]; null where it is not wanted
  const float* weight = nullptr;
  float eps = 0.0f;
  NumericsClass numerics = NumericsClass::kF32Chain;
};

}  // namespace orrery::kernels::cpu
