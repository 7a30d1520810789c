// Products of bf16 operands on vectors: blocks of rows, threads, and the f32 buffer in
// which a panel of 32 columns is summed.
#include "kernels/cpu/pairs-inl.h"
#include "kernels/cpu/pairs_matmul_pack-inl.h"
#include "kernels/cpu/pairs_product-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_PAIRS_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_PAIRS_MATMUL_INL_H_
#undef ORRERY_KERNELS_CPU_PAIRS_MATMUL_INL_H_
#else
#define ORRERY_KERNELS_CPU_PAIRS_MATMUL_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "core/parallel.h"
#include "core/tensor.h"
#include "kernels/cpu/flush.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/pairs.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace pairs {

/// Bytes of one thread's packed left operand: on the stack, half of a 1 MiB L2 cache.
inline constexpr int64_t kLeftBytes = 512 * 1024;
/// Most rows of a block.
inline constexpr int64_t kMaxRows = 192;
/// Most blocks of pairs that a row tile goes through at once: a panel's are 36 KiB,
/// about a first-level cache. Found by trial.
inline constexpr int64_t kBlocksAtOnce = 18;

inline int64_t tiles_of(int64_t rows) { return ceil_div(rows, VectorEngine::kTileRows); }
/// Where a row tile begins: they are about equal.
inline int64_t tile_row(int64_t rows, int64_t tile) { return rows * tile / tiles_of(rows); }

/// One panel for one block of rows.
struct Panel {
  const float* left = nullptr;
  const Bf16* b = nullptr;
  const Bf16* next_b = nullptr;  ///< the panel that comes next, to be fetched; or null
  float* c = nullptr;            ///< [rows][kPanelWidth], rows c_stride apart
  int64_t c_stride = kPanelWidth;
  bool accumulate = true;  ///< start from c; else from 0
  int64_t rows = 0;
  int64_t blocks = 0;
  int64_t square_width = kPanelWidth;
};

/// Fetches share `index` of `count` of a panel. Where B comes from memory or the
/// third-level cache, its row tiles share the work for the panel after theirs.
inline void fetch_share(const Bf16* panel, int64_t blocks, int64_t index, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(Bf16);
  const int64_t lines = blocks * kSquare / kLine;
  for (int64_t i = lines * index / count; i < lines * (index + 1) / count; ++i)
    hwy::Prefetch(panel + i * kLine);
}

/// Fetches C of the row tile after the next, of this panel or of the one to the right;
/// the address may lie past C, which is not read here.
inline void fetch_tile(const Panel& panel, int64_t tile, int64_t tiles) {
  const bool here = tile < tiles;
  if (!here) tile = std::min(tile - tiles, tiles - 1);
  const float* const c = panel.c + (here ? 0 : kPanelWidth);
  for (int64_t row = tile_row(panel.rows, tile); row < tile_row(panel.rows, tile + 1); ++row) {
    hwy::Prefetch(c + row * panel.c_stride);
    hwy::Prefetch(c + row * panel.c_stride + kPanelWidth / 2);
  }
}

HWY_NOINLINE inline void multiply_panel(const Panel& panel) {
  const int64_t tiles = tiles_of(panel.rows);
  const int64_t parts = ceil_div(panel.blocks, kBlocksAtOnce);
  const int64_t part = parts == 0 ? 0 : ceil_div(panel.blocks, parts);
  const int64_t calls = tiles * parts;
  int64_t call = 0;
  for (int64_t block = 0; block < panel.blocks; block += part) {
    for (int64_t t = 0; t < tiles; ++t) {
      if (panel.next_b != nullptr && tiles > 1)
        fetch_share(panel.next_b, panel.blocks, call++, calls);
      const int64_t row = tile_row(panel.rows, t);
      // The buffer, whose rows are kPanelWidth apart, is in the cache.
      if (block == 0 && panel.c_stride != kPanelWidth) fetch_tile(panel, t + 2, tiles);
      Multiply<float> op;
      op.rows = tile_row(panel.rows, t + 1) - row;
      op.cols = kPanelWidth;
      op.blocks = std::min(panel.blocks - block, part);
      op.c = panel.c + row * panel.c_stride, op.c_stride = panel.c_stride;
      op.accumulate = panel.accumulate || block > 0;
      op.a_block_stride = op.rows * kPairsBlock;
      op.a = panel.left + row * panel.blocks * kPairsBlock + block * op.a_block_stride;
      op.b = panel.b + block * kSquare, op.b_pair_stride = 2 * panel.square_width;
      if (panel.square_width < kPanelWidth) op.b_right = op.b_gap = kSquare / 2;
      op.streams_b = t == 0;
      VectorEngine::multiply(op);
    }
  }
}

HWY_NOINLINE inline void multiply_panel_flushed(const Panel& panel) {
  const cpu::FlushScope flush;
  multiply_panel(panel);
}

/// Packs the left operand of rows [begin, begin + rows) of C.
inline void pack_left(const Product& product, int64_t begin, int64_t rows, float* left) {
  const int64_t tiles = tiles_of(rows);
  if (product.row_blocks == nullptr) {
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = tile_row(rows, t), end = tile_row(rows, t + 1);
      pack_left_rows(product.a.row_range(begin + row, begin + std::min(end, rows)), end - row,
                     left + row * product.blocks * kPairsBlock);
    }
    return;
  }
  alignas(64) Bf16 columns[kSquare];
  for (int64_t block = 0; block < product.blocks; ++block) {
    for (int64_t i = 0, t = -1, row = 0, end = 0; i < rows; ++i) {
      if (i % kPanelWidth == 0) {
        transpose_columns(product.a, product.row_blocks[block], begin + i,
                          std::min(rows - i, kPanelWidth), columns);
      }
      if (i == end) ++t, row = end, end = tile_row(rows, t + 1);
      put_left(columns + i % kPanelWidth * kPairsBlock, kPairsBlock,
               left + (row * product.blocks + block * (end - row) + i - row) * kPairsBlock);
    }
  }
}

/// One thread's part: rows [row_begin, row_end) and the columns of panels [panel_begin,
/// panel_end). The left operand of a block of rows is packed once and meets each panel.
inline void multiply_part(const Product& product, int64_t row_begin, int64_t row_end,
                          int64_t panel_begin, int64_t panel_end) {
  alignas(64) float left[kLeftBytes / int64_t{sizeof(float)}];
  alignas(64) float c[kMaxRows * kPanelWidth];
  constexpr int64_t kTile = VectorEngine::kTileRows;
  static_assert(kTile * kMaxInner * int64_t{sizeof(float)} <= kLeftBytes && kMaxRows % kTile == 0);
  const int64_t row_bytes = std::max<int64_t>(product.blocks, 1) * kPairsBlock * sizeof(float);
  const int64_t most = std::min(kLeftBytes / row_bytes / kTile * kTile, kMaxRows);
  const int64_t row_blocks = ceil_div(ceil_div(row_end - row_begin, kTile), most / kTile);
  const int64_t step = ceil_div(ceil_div(row_end - row_begin, row_blocks), kTile) * kTile;
  // f32 sums that start from C or from zero need no buffer.
  const bool in_place = product.c.dtype == DType::kF32 && product.bias == nullptr &&
                        product.blocks > 0 &&
                        (product.start.data == nullptr || product.start.data == product.c.data);
  for (int64_t row = row_begin; row < row_end; row += step) {
    const int64_t rows = std::min(row_end - row, step);
    pack_left(product, row, rows, left);
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      const int64_t col = p * kPanelWidth, cols = std::min(product.c.cols - col, kPanelWidth);
      Panel panel{.left = left,
                  .b = product.b + p * product.panel_stride,
                  .rows = rows,
                  .blocks = product.blocks,
                  .square_width = product.square_width};
      if (p + 1 < panel_end) panel.next_b = panel.b + product.panel_stride;
      if (in_place && cols == kPanelWidth) {
        panel.c = static_cast<float*>(product.c.data) + row * product.c.stride + col;
        panel.c_stride = product.c.stride;
        panel.accumulate = product.start.data != nullptr;
        multiply_panel_flushed(panel);
        continue;
      }
      panel.c = c;
      load_panel(product, row, rows, rows, col, cols, c);
      multiply_panel_flushed(panel);
      store_panel(c, row, rows, col, cols, product.c);
    }
  }
}

/// Shares the product among threads: by panels, or by rows where there are few panels
/// and enough rows.
inline void multiply_on(VectorEngine /*unused*/, const Context& ctx, const Product& product) {
  const int64_t m = product.c.rows, inner = std::max<int64_t>(product.blocks, 1) * kPairsBlock;
  const int64_t panels = ceil_div(product.c.cols, kPanelWidth);
  const int64_t tiles = tiles_of(m);
  constexpr int64_t kTile = VectorEngine::kTileRows;
  if (tiles >= 4 * ctx.threads && panels < 32 * ctx.threads) {
    const int64_t work = kTile * inner * product.c.cols;
    parallel_for(ctx, tiles, ceil_div(kGrain, work), [&](int64_t begin, int64_t end) {
      multiply_part(product, begin * kTile, std::min(end * kTile, m), 0, panels);
    });
  } else {
    const int64_t work = m * inner * kPanelWidth;
    parallel_for(ctx, panels, ceil_div(kGrain, work),
                 [&](int64_t begin, int64_t end) { multiply_part(product, 0, m, begin, end); });
  }
}

}  // namespace pairs
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
