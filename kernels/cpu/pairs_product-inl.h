// What a product of bf16 operands consists of, for one SIMD target, whichever engine
// multiplies: C [m, n] = start + A B.
#include "kernels/cpu/pairs-inl.h"
#include "kernels/cpu/pairs_matmul_pack-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_PAIRS_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_PAIRS_PRODUCT_INL_H_
#undef ORRERY_KERNELS_CPU_PAIRS_PRODUCT_INL_H_
#else
#define ORRERY_KERNELS_CPU_PAIRS_PRODUCT_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "core/dtype.h"
#include "core/tensor.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/pairs.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace pairs {

/// Most inner indices of a product: a packed row tile then has room on the stack.
inline constexpr int64_t kMaxInner = 4096;
/// Multiply-adds that are worth a thread.
inline constexpr int64_t kGrain = 1 << 17;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// C = start + A B over at most kMaxInner inner indices.
struct Product {
  int64_t blocks = 0;  ///< of the inner dimension
  /// A: [m, inner], or with row_blocks its transpose, whose rows those are.
  Mat<const Bf16> a;
  const RowBlock* row_blocks = nullptr;  ///< [blocks]
  /// B: panels of squares. With `swap` those of a packed weight, to be swapped.
  const Bf16* b = nullptr;
  int64_t panel_stride = 0;        ///< elements of B from a panel to the next
  int64_t block_stride = kSquare;  ///< and from a square of a panel to the next
  bool swap = false;
  int64_t square_width = kPanelWidth;  ///< of B's squares: pairs_matmul_pack-inl.h
  // Where the sums start from: a row for all, a matrix, or zero.
  const float* bias = nullptr;
  Mat<const float> start;
  ActMat c;
};

/// Writes the starts of the sums of columns [col, col + cols), zeros past them.
inline void load_panel(const Product& product, int64_t row, int64_t rows, int64_t padded,
                       int64_t col, int64_t cols, float* HWY_RESTRICT c) {
  if (product.bias == nullptr && product.start.data == nullptr)
    return void(std::fill_n(c, padded * kPanelWidth, 0.0f));
  if (cols < kPanelWidth || padded > rows) std::fill_n(c, padded * kPanelWidth, 0.0f);
  for (int64_t i = 0; i < rows; ++i, c += kPanelWidth) {
    const float* const from =
        product.bias != nullptr ? product.bias + col : cpu::row(product.start, row + i) + col;
    if (cols == kPanelWidth) {
      std::copy_n(from, kPanelWidth, c);
    } else {
      std::copy_n(from, cols, c);
    }
  }
}

inline void store_panel(const float* HWY_RESTRICT c, int64_t row, int64_t rows, int64_t col,
                        int64_t cols, const ActMat& to) {
  for (int64_t i = 0; i < rows; ++i, c += kPanelWidth) {
    const int64_t at = (row + i) * to.stride + col;
    if (to.dtype == DType::kBF16) {
      Bf16* const out = static_cast<Bf16*>(to.data) + at;
      cols == kPanelWidth ? round(c, kPanelWidth, out) : round(c, cols, out);
    } else {
      float* const out = static_cast<float*>(to.data) + at;
      if (cols == kPanelWidth) {
        std::copy_n(c, kPanelWidth, out);
      } else {
        std::copy_n(c, cols, out);
      }
    }
  }
}

}  // namespace pairs
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
