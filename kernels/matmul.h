// Matrix products of a linear layer y = x W^T + b (docs/numerics.md). With f32 operands
// element (i, j) of a product is a chain of fma over the inner index in rising order,
// with bf16 operands a sum in pairs; both start from the value already there (the bias,
// or the output when accumulating) or from 0. On devices whose bf16 is that of tensor
// cores (Device::dot16()) it is a dot16 chain, to which bias and output are added
// afterwards, but for dW, which starts from what is there. Hence a row of the result
// depends on that row of the input alone, not on the number of rows, on threads,
// blocking or vector width; and accumulating dW over two batches gives the bits of one
// call over both.
//
// All matrices are row-major (Mat, ActMat: rows, cols, stride). Both operands are f32
// or both are bf16, the weight included; the result is f32, or bf16 (rounded to nearest
// even from the f32 sum) where both operands are and it is not accumulated. Thread-safe
// for distinct outputs. Shapes and types are checked.
#pragma once

#include <cstddef>

#include "core/context.h"
#include "core/dtype.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// A weight W [n, k] in the layout that a device's kernels read: what pack_weight made,
/// for that device alone. Weights are rounded to bf16 when packed: to nearest, halves
/// away from zero. A view: the memory belongs to the caller.
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

/// dx = dy W, or dx += dy W with accumulate. Summed over n.
struct MatmulBackwardInput {
  ActMat dx;            ///< [m, k]
  ConstActMat dy;       ///< [m, n]
  PackedWeight weight;  ///< [n, k]
  bool accumulate = false;
};
void matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op);

/// dw += dy^T x, or without accumulate dw = dy^T x, summed over the rows m: in f32 a
/// chain, in bf16 in pairs or a dot16 chain, whose blocks begin anew at each run of
/// rows. Overwriting has
/// the bits of adding to zeros.
struct MatmulBackwardWeight {
  Mat<float> dw;   ///< [n, k]
  ConstActMat dy;  ///< [m, n]
  ConstActMat x;   ///< [m, k]
  /// In host memory: where the runs of rows end, rising, the last one at m. Empty: all
  /// rows are one run. A run may be empty. Not read with f32 operands.
  Span<const int64_t> run_ends{};
  bool accumulate = true;
};
void matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op);

/// db += the rows of dy, one after the other (plain adds in f32). Without accumulate
/// the sum starts from 0. With run_ends each run's sum starts from 0, and the runs'
/// sums are added in order.
struct BiasBackward {
  Vec<float> db;   ///< [n]
  ConstActMat dy;  ///< [m, n] f32 or bf16
  bool accumulate = true;
  /// In host memory, as MatmulBackwardWeight's. Empty: one sum over all rows.
  Span<const int64_t> run_ends{};
};
void bias_backward(const Context& ctx, const BiasBackward& op);

}  // namespace orrery::kernels
