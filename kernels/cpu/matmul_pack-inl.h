// Copies of operands in the order in which the tiles read them.
#include "kernels/cpu/matmul_tile-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_MATMUL_PACK_INL_H_
#undef ORRERY_KERNELS_CPU_MATMUL_PACK_INL_H_
#else
#define ORRERY_KERNELS_CPU_MATMUL_PACK_INL_H_
#endif

#include <algorithm>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Elements that pack_rows may write after the last one.
inline constexpr int64_t kPackSlack = kLanes;

using Quad = hn::FixedTag<float, 4>;

HWY_INLINE hn::Vec<Quad> load_quad(const float* p) { return hn::LoadU(Quad(), p); }

/// Columns [c, c + 4) of rows q, q + 4, q + 8, ... as the vector's blocks of four
/// lanes.
HWY_INLINE hn::Vec<Floats> gather_quads(const float* const* rows, int q, int64_t c) {
#if HWY_TARGET == HWY_NEON
  return load_quad(rows[q] + c);
#else
  const hn::FixedTag<float, 8> d8;
  const auto low = hn::Combine(d8, load_quad(rows[q + 4] + c), load_quad(rows[q] + c));
#if HWY_TARGET == HWY_AVX2
  return low;
#else
  const auto high = hn::Combine(d8, load_quad(rows[q + 12] + c), load_quad(rows[q + 8] + c));
  return hn::Combine(Floats(), high, low);
#endif
#endif
}

/// out[c] = column c of the kLanes rows, for four columns from `column` on.
HWY_INLINE void transpose_quads(const float* const* rows, int64_t column, hn::Vec<Floats>* out) {
  const Floats d;
  const hn::RepartitionToWide<Floats> d64;
  const auto q0 = gather_quads(rows, 0, column), q1 = gather_quads(rows, 1, column);
  const auto q2 = gather_quads(rows, 2, column), q3 = gather_quads(rows, 3, column);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, q0, q1));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, q0, q1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, q2, q3));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, q2, q3));
  out[0] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
  out[1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
  out[2] = hn::BitCast(d, hn::InterleaveLower(d64, high01, high23));
  out[3] = hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23));
}

/// out[p * out_stride + r] = rows[r][p] for kLanes rows. A function of its own, so that
/// the compiler reads the pointers from memory: there are more than registers.
HWY_NOINLINE void transpose_pointers(float* HWY_RESTRICT out, int64_t out_stride,
                                     const float* const* rows, int64_t cols) {
  constexpr int64_t kLine = kCacheLine / int64_t{sizeof(float)}, kAhead = 4 * kLine;
  const Floats d;
  int64_t p = 0;
  for (; p + 4 <= cols; p += 4) {
    if (p % kLine == 0) {  // too many streams for the hardware
      for (int r = 0; r < kLanes; ++r) hwy::Prefetch(rows[r] + p + kAhead);
    }
    hn::Vec<Floats> columns[4];
    transpose_quads(rows, p, columns);
    HWY_UNROLL(4)
    for (int i = 0; i < 4; ++i) hn::StoreU(columns[i], d, out + (p + i) * out_stride);
  }
  for (; p < cols; ++p) {
    for (int64_t r = 0; r < kLanes; ++r) out[p * out_stride + r] = rows[r][p];
  }
}

/// Transposes up to kLanes rows: out[p * out_stride + r] = row r, column p. Writes
/// kLanes elements for each column, in rising order of columns; those past `rows`
/// repeat the last row, so with out_stride == rows each column overwrites the surplus
/// of the one before.
void transpose_rows(float* out, int64_t out_stride, const float* src, int64_t src_stride,
                    int64_t rows, int64_t cols) {
  const float* row[kLanes];
  for (int64_t r = 0; r < kLanes; ++r) row[r] = src + std::min(r, rows - 1) * src_stride;
  transpose_pointers(out, out_stride, row, cols);
}

/// out [cols][rows] = src [rows, cols] transposed, rows <= kTileRows. Needs kPackSlack
/// elements after the end.
inline void pack_rows(float* out, const float* src, int64_t src_stride, int64_t rows,
                      int64_t cols) {
  if (rows <= kLanes) return transpose_rows(out, rows, src, src_stride, rows, cols);
  for (int64_t p = 0; p < cols; ++p) {  // a tile taller than a vector (NEON)
    for (int64_t r = 0; r < rows; ++r) out[p * rows + r] = src[r * src_stride + p];
  }
}

/// Copies `width` <= kTileRows floats; may write up to kPackSlack elements more.
HWY_INLINE void copy_row(float* out, const float* src, int64_t width) {
#if HWY_TARGET == HWY_NEON
  for (int64_t r = 0; r < width; ++r) out[r] = src[r];
#else
  static_assert(kTileRows <= kLanes);
  const Floats d;
  hn::StoreU(hn::MaskedLoad(hn::FirstN(d, width), d, src), d, out);
#endif
}

/// One panel: out [cols][kPanelWidth] = src [rows, cols] transposed, rows <=
/// kPanelWidth, the rest zeros.
void pack_panel(float* out, const float* src, int64_t src_stride, int64_t rows, int64_t cols) {
  if (cols == 0) return;  // src may then be null, which has no second row
  for (int64_t r = 0; r < kPanelWidth; r += kLanes) {
    const int64_t group = std::min<int64_t>(rows - r, kLanes);
    if (group > 0)
      transpose_rows(out + r, kPanelWidth, src + r * src_stride, src_stride, group, cols);
  }
  if (rows == kPanelWidth) return;
  for (int64_t p = 0; p < cols; ++p)
    std::fill(out + p * kPanelWidth + rows, out + (p + 1) * kPanelWidth, 0.0f);
}

/// Transposes a square of a packed weight: out [cols][kPanelWidth] = src
/// [rows][kPanelWidth] transposed, rows and cols <= kPanelWidth, the rest of out's rows
/// zeros. Fetches the square that follows in memory.
void transpose_block(float* HWY_RESTRICT out, const float* HWY_RESTRICT src, int64_t rows,
                     int64_t cols) {
  constexpr int64_t kSquare = kPanelWidth * kPanelWidth;
  constexpr int64_t kLine = kCacheLine / int64_t{sizeof(float)};
  if (rows < kPanelWidth || cols < kPanelWidth)
    return pack_panel(out, src, kPanelWidth, rows, cols);
  const Floats d;
  for (int64_t r = 0; r < kPanelWidth; r += kLanes) {
    const float* row[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) row[i] = src + (r + i) * kPanelWidth;
    for (int64_t i = 0; i < kLanes * kPanelWidth; i += kLine) hwy::Prefetch(row[0] + kSquare + i);
    HWY_UNROLL(8)
    for (int64_t p = 0; p < kPanelWidth; p += 4) {
      hn::Vec<Floats> columns[4];
      transpose_quads(row, p, columns);
      HWY_UNROLL(4)
      for (int i = 0; i < 4; ++i) hn::StoreU(columns[i], d, out + (p + i) * kPanelWidth + r);
    }
  }
}

/// One panel without transposing: out [count][kPanelWidth] = src [count, width], the
/// rest of the rows zeros.
inline void copy_panel(float* out, const float* src, int64_t src_stride, int64_t width,
                       int64_t count) {
  const Floats d;
  for (int64_t p = 0; p < count; ++p, out += kPanelWidth, src += src_stride) {
    if (width == kPanelWidth) {
      for (int64_t v = 0; v < kPanelWidth; v += kLanes)
        hn::StoreU(hn::LoadU(d, src + v), d, out + v);
    } else {
      std::copy(src, src + width, out);
      std::fill(out + width, out + kPanelWidth, 0.0f);
    }
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
