// Matrix products of a linear layer y = x W^T + b in chain order (docs/numerics.md):
// element (i, j) of a product is a chain of fma over the inner index in rising order,
// which starts from the value already there (the bias, or the output when
// accumulating). Hence a row of the result depends on that row of the input alone, not
// on the number of rows, on threads, blocking or vector width; and accumulating dW over
// two batches gives the bits of one call over both.
//
// All matrices are row-major (Mat, ActMat: rows, cols, stride), of float32. Thread-safe
// for distinct outputs. Shapes are checked.
#pragma once

#include <cstddef>

#include "core/context.h"
#include "core/dtype.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// A weight W [n, k] in the layout that a device's kernels read: what pack_weight made,
/// for that device alone. bf16 weights are rounded to nearest even when packed and
/// expanded exactly inside the products. A view: the memory belongs to the caller.
struct PackedWeight {
  DType dtype = DType::kF32;  ///< kF32 or kBF16
  int64_t n = 0;              ///< output features
  int64_t k = 0;              ///< input features
  const void* data = nullptr;
};

/// Bytes of a packed [n, k] weight on `device`: a multiple of its alignment, so that
/// packed weights may stand one behind the other.
size_t packed_weight_bytes(Device device, DType dtype, int64_t n, int64_t k);

/// Packs a weight into memory of the caller's.
struct PackWeight {
  Mat<const float> weight;    ///< [n, k]
  DType dtype = DType::kF32;  ///< of the packed weight: kF32 or kBF16
  void* memory = nullptr;     ///< packed_weight_bytes(ctx.device, ...), 64-byte aligned
};
/// Returns the view of the packed weight.
PackedWeight pack_weight(const Context& ctx, const PackWeight& op);

/// y = x W^T + bias. With accumulate: y += x W^T.
struct MatmulForward {
  ActMat y;                 ///< [m, n]
  ConstActMat x;            ///< [m, k]
  PackedWeight weight;      ///< [n, k]
  Vec<const float> bias{};  ///< [n]; empty: 0. Must be empty with accumulate
  bool accumulate = false;
};
void matmul_forward(const Context& ctx, const MatmulForward& op);

/// dx = dy W, or dx += dy W with accumulate. Chain over n.
struct MatmulBackwardInput {
  ActMat dx;            ///< [m, k]
  ConstActMat dy;       ///< [m, n]
  PackedWeight weight;  ///< [n, k]
  bool accumulate = false;
};
void matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op);

/// dw += dy^T x, chain over the rows m.
struct MatmulBackwardWeight {
  Mat<float> dw;   ///< [n, k]
  ConstActMat dy;  ///< [m, n]
  ConstActMat x;   ///< [m, k]
};
void matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op);

/// db += the sum over the rows of dy, in row order (plain adds).
struct BiasBackward {
  Vec<float> db;   ///< [n]
  ConstActMat dy;  ///< [m, n]
};
void bias_backward(const Context& ctx, const BiasBackward& op);

}  // namespace orrery::kernels
