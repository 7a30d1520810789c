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
#include <cstring>
#include <type_traits>

#include "core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Elements that pack_rows may write after the last one.
inline constexpr int64_t kPackSlack = kLanes;

using Quad = hn::FixedTag<float, 4>;

HWY_INLINE hn::Vec<Quad> load_quad(const float* p) { return hn::LoadU(Quad(), p); }
HWY_INLINE hn::Vec<Quad> load_quad(const uint16_t* p) {
  const hn::FixedTag<uint16_t, 4> d16;
  const hn::FixedTag<uint32_t, 4> d32;
  return hn::BitCast(Quad(), hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, p))));
}
HWY_INLINE float to_float(float value) { return value; }
HWY_INLINE float to_float(uint16_t bits) { return bf16_to_f32(bits); }

/// Columns [c, c + 4) of rows q, q + 4, q + 8, ... as the vector's blocks of four
/// lanes.
template <class T>
HWY_INLINE hn::Vec<Floats> gather_quads(const T* const* rows, int q, int64_t c) {
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
template <class T>
HWY_INLINE void transpose_quads(const T* const* rows, int64_t column, hn::Vec<Floats>* out) {
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
template <class T>
HWY_NOINLINE void transpose_pointers(float* HWY_RESTRICT out, int64_t out_stride,
                                     const T* const* rows, int64_t cols) {
  constexpr int64_t kLine = kCacheLine / int64_t{sizeof(T)}, kAhead = 4 * kLine;
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
    for (int64_t r = 0; r < kLanes; ++r) out[p * out_stride + r] = to_float(rows[r][p]);
  }
}

/// Transposes up to kLanes rows: out[p * out_stride + r] = row r, column p. Writes
/// kLanes elements for each column, in rising order of columns; those past `rows`
/// repeat the last row, so with out_stride == rows each column overwrites the surplus
/// of the one before.
template <class T>
void transpose_rows(float* out, int64_t out_stride, const T* src, int64_t src_stride, int64_t rows,
                    int64_t cols) {
  const T* row[kLanes];
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
template <class T>
void pack_panel(float* out, const T* src, int64_t src_stride, int64_t rows, int64_t cols) {
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

/// f32_to_bf16 of `count` floats, a multiple of kLanes.
inline void round_to_bf16(uint16_t* HWY_RESTRICT out, const float* HWY_RESTRICT in, int64_t count) {
  const Floats d;
  const hn::FixedTag<uint32_t, kLanes> d32;
  const hn::FixedTag<uint16_t, kLanes> d16;
  for (int64_t i = 0; i < count; i += kLanes) {
    const auto value = hn::LoadU(d, in + i);
    const auto bits = hn::BitCast(d32, value);
    const auto high = hn::ShiftRight<16>(bits);
    const auto to_even = hn::Add(hn::Set(d32, 0x7FFF), hn::And(high, hn::Set(d32, 1)));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, to_even));
    const auto quiet = hn::Or(high, hn::Set(d32, 0x40));  // NaN stays NaN
    const auto result = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(value)), quiet, rounded);
    hn::StoreU(hn::TruncateTo(d16, result), d16, out + i);
  }
}

/// Transposes a square of a packed weight: out [cols][kPanelWidth] = src
/// [rows][kPanelWidth] transposed, rows and cols <= kPanelWidth, the rest of out's rows
/// zeros. Fetches the square that follows in memory.
template <class T>
void transpose_block(float* HWY_RESTRICT out, const T* HWY_RESTRICT src, int64_t rows,
                     int64_t cols) {
  constexpr int64_t kSquare = kPanelWidth * kPanelWidth;
  constexpr int64_t kLine = kCacheLine / int64_t{sizeof(T)};
  if (rows < kPanelWidth || cols < kPanelWidth)
    return pack_panel(out, src, kPanelWidth, rows, cols);
  const Floats d;
  for (int64_t r = 0; r < kPanelWidth; r += kLanes) {
    const T* row[kLanes];
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
