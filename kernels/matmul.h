// Matrix products of a linear layer y = x W^T + b in chain order (docs/numerics.md):
// element (i, j) of a product is a chain of fma over the inner index in rising order,
// which starts from the value already there (the bias, or the output when
// accumulating). Hence a row of the result depends on that row of the input alone, not
// on the number of rows, on threads, blocking or vector width; and accumulating dW over
// two batches gives the bits of one call over both.
//
// All matrices are row-major float32 (Mat: rows, cols, stride). Thread-safe for
// distinct outputs. Shapes are checked.
#pragma once

#include <cstddef>

#include "core/buffer.h"
#include "core/context.h"
#include "core/dtype.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// Columns of W^T (output features) in one panel of a packed weight.
inline constexpr int64_t kPanelWidth = 32;

/// A weight W [n, k] in the layout that the kernels read: panels of 32 output features,
/// k-major inside a panel. Element (j, p) is in panel j / 32 at offset p * 32 + j % 32;
/// the last panel is padded with zeros. bf16 weights are rounded to nearest even when
/// packed and expanded exactly inside the products. A view: the memory belongs to the
/// caller.
struct PackedWeight {
  DType dtype = DType::kF32;  ///< kF32 or kBF16
  int64_t n = 0;              ///< output features
  int64_t k = 0;              ///< input features
  const void* data = nullptr;
};

/// Bytes of a packed [n, k] weight.
size_t packed_weight_bytes(DType dtype, int64_t n, int64_t k);

/// Packs w [n, k] into `memory` (packed_weight_bytes, 64-byte aligned) and returns the
/// view.
PackedWeight pack_weight(const Context& ctx, Mat<const float> w, DType dtype, void* memory);

/// y [m, n] = x [m, k] W^T + bias [n] (empty bias: 0). With accumulate: y += x W^T,
/// bias must be empty.
void matmul_forward(const Context& ctx, Mat<float> y, Mat<const float> x, const PackedWeight& w,
                    Span<const float> bias = {}, bool accumulate = false);

/// dx [m, k] = dy [m, n] W, or dx += dy W with accumulate. Chain over n. `arena`:
/// temporaries, released on return.
void matmul_backward_input(const Context& ctx, Mat<float> dx, Mat<const float> dy,
                           const PackedWeight& w, bool accumulate, Arena& arena);

/// dw [n, k] += dy^T x, chain over the rows m of dy [m, n] and x [m, k]. `arena` as
/// above.
void matmul_backward_weight(const Context& ctx, Mat<float> dw, Mat<const float> dy,
                            Mat<const float> x, Arena& arena);

/// db [n] += sum over rows of dy [m, n], in row order (plain adds).
void bias_backward(const Context& ctx, Span<float> db, Mat<const float> dy);

}  // namespace orrery::kernels
