// The innermost loop of every matrix product. A tile of C, held in registers, gains one
// fused multiply-add per element for each inner index in rising order. Elements of A
// are broadcast and columns of C are vector lanes, so no sum is ever split.
//
// The tile is as large as the register file allows (the more rows share a load of B,
// and the more columns share a broadcast of A, the fewer loads an FMA costs): 14 x 32
// with 32 registers of 16 lanes, 6 x 16 otherwise. Few rows take several slices of
// columns at once instead, so that enough independent chains hide the latency of an
// FMA.
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_MATMUL_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_MATMUL_TILE_INL_H_
#undef ORRERY_KERNELS_CPU_MATMUL_TILE_INL_H_
#else
#define ORRERY_KERNELS_CPU_MATMUL_TILE_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "hwy/cache_control.h"
#include "kernels/cpu/matmul.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

using cpu::kPanelWidth;
inline constexpr int kLanes = HWY_LANES(float);
using Floats = hn::FixedTag<float, kLanes>;

inline constexpr bool kWideTile = HWY_TARGET != HWY_AVX2 && kLanes == 16;
inline constexpr int kTileRows = kWideTile ? 14 : 6;
inline constexpr int kTileCols = kWideTile ? 32 : 16;  // a slice: a panel or half of it
inline constexpr int kTileVectors = kTileCols / kLanes;
inline constexpr int kSlicesPerPanel = int{kPanelWidth} / kTileCols;
/// Vector registers for the tile's accumulators.
inline constexpr int kAccumulators = HWY_TARGET == HWY_AVX2 ? 12 : 28;
inline constexpr int kMaxSlices = 4;

/// Largest number of slices (1, 2 or 4) for a tile of `rows` rows that leaves registers
/// for A and B.
constexpr int slices_for_rows(int64_t rows) {
  for (int slices = kMaxSlices; slices > 1; slices /= 2) {
    const int operands = HWY_TARGET == HWY_AVX2 ? 3 : slices * kTileVectors;
    if (rows * slices * kTileVectors + operands < kAccumulators + 4) return slices;
  }
  return 1;
}

/// Operands of a tile. Slice s of B starts at
///   b + (s / kSlicesPerPanel) * panel_stride + (s % kSlicesPerPanel) * kTileCols
/// and its rows are kPanelWidth elements apart. Slices are adjacent in init and c.
struct Tile {
  int64_t k = 0;
  const float* a = nullptr;  ///< [k][rows]
  const float* b = nullptr;
  int64_t panel_stride = 0;
  /// Where the chains start from. May be c, or one row for all (stride 0).
  const float* init = nullptr;
  int64_t init_stride = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  // Fetched into the caches on the way, for tiles to come. Never read here.
  const float* next_c = nullptr;  ///< as many rows and columns as this tile, c_stride apart
  const float* next_b = nullptr;  ///< a row of B in each panel, panel_stride apart; or null
  int64_t next_b_step = 1;        ///< inner indices per row of next_b that is fetched
};

inline constexpr int64_t kCacheLine = 64;

template <int kRows, int kSlices>
HWY_NOINLINE void run_tile(const Tile& tile) {
  constexpr int kVectors = kSlices * kTileVectors;
  const Floats d;
  hn::Vec<Floats> acc[kRows][kVectors];
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int v = 0; v < kVectors; ++v)
      acc[r][v] = hn::LoadU(d, tile.init + r * tile.init_stride + v * kLanes);
  }
  const float* HWY_RESTRICT a = tile.a;
  const float* HWY_RESTRICT slices[kSlices];
  HWY_UNROLL(4)
  for (int s = 0; s < kSlices; ++s) {
    slices[s] =
        tile.b + (s / kSlicesPerPanel) * tile.panel_stride + (s % kSlicesPerPanel) * kTileCols;
  }
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int s = 0; s < kVectors * kLanes; s += kCacheLine / int{sizeof(float)})
      hwy::Prefetch(tile.next_c + r * tile.c_stride + s);
  }
  const float* next_b = tile.next_b;
  constexpr int64_t kLineElements = kCacheLine / int64_t{sizeof(float)};
  const int64_t step = tile.next_b_step;
  for (int64_t p = 0; p < tile.k;) {
    const int64_t step_end = std::min(p + step, tile.k);
    if (next_b != nullptr) {
      HWY_UNROLL(4)
      for (int s = 0; s < kSlices; ++s) {
        const float* const line =
            next_b + (s / kSlicesPerPanel) * tile.panel_stride + s % kSlicesPerPanel * kTileCols;
        hwy::Prefetch(line);
        if constexpr (kLineElements < kTileCols) hwy::Prefetch(line + kLineElements);
      }
      next_b += kPanelWidth;
    }
    for (; p < step_end; ++p) {
      hn::Vec<Floats> b[kVectors];
      HWY_UNROLL(16)
      for (int v = 0; v < kVectors; ++v) {
        b[v] =
            hn::LoadU(d, slices[v / kTileVectors] + p * kPanelWidth + (v % kTileVectors) * kLanes);
      }
      HWY_UNROLL(16)
      for (int r = 0; r < kRows; ++r) {
        const auto a_r = hn::Set(d, a[r]);
        HWY_UNROLL(16)
        for (int v = 0; v < kVectors; ++v) acc[r][v] = hn::MulAdd(a_r, b[v], acc[r][v]);
      }
      a += kRows;
    }
  }
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int v = 0; v < kVectors; ++v)
      hn::StoreU(acc[r][v], d, tile.c + r * tile.c_stride + v * kLanes);
  }
}

using TileFunction = void (*)(const Tile&);

template <int kSlices, int... kRowsMinusOne>
constexpr std::array<TileFunction, kTileRows> tile_functions(
    std::integer_sequence<int, kRowsMinusOne...>) {
  // A combination that never runs, for it needs too many registers, is not built: its
  // entry is that of one slice.
  return {&run_tile<kRowsMinusOne + 1,
                    (kSlices <= slices_for_rows(kRowsMinusOne + 1) ? kSlices : 1)>...};
}

/// The tile of `rows` (1 .. kTileRows) by `slices` (1, 2, 4, at most
/// slices_for_rows(rows)).
TileFunction tile_function(int64_t rows, int64_t slices) {
  constexpr auto kIndices = std::make_integer_sequence<int, kTileRows>();
  static constexpr std::array<TileFunction, kTileRows> kOne = tile_functions<1>(kIndices);
  static constexpr std::array<TileFunction, kTileRows> kTwo = tile_functions<2>(kIndices);
  static constexpr std::array<TileFunction, kTileRows> kFour = tile_functions<4>(kIndices);
  return (slices == 4 ? kFour : slices == 2 ? kTwo : kOne)[rows - 1];
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
