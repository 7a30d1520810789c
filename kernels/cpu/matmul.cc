// Matrix products of linear layers in f32: packing, blocking and threads around the
// register tiles of matmul_tile-inl.h (in bf16: pairs_matmul.cc). All products are
// C [m, n] (+)= A [m, k] B [k, n]. What holds, and makes every element of C one chain:
//   1. One thread computes an element of C, and runs over k in rising order.
//   2. k is cut into blocks. In the first block the chain starts from zero, the bias or
//      C itself; in the next ones from C, which the block before has written. Writing
//      and reading a float32 rounds nothing, so the cut changes no bit. With k = 0 one
//      empty block still gives C its start.
//   3. B comes in panels of kPanelWidth columns, k-major, the last one padded with
//      zeros. A slice (a panel, or half of one) is what a register tile reads of it.
//   4. A is packed by row tile, [k][rows], so that a register tile reads it in order.
//   5. Columns of the last slice that C does not have are computed in `edge`, a tile
//      beside C, and dropped.
//   6. Prefetches touch addresses that may lie past the operands. They fetch and never
//      read.
// The backward products pack B themselves, kBackwardInner inner indices at a time, and
// continue the chain from C by 2.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/matmul.cc"
#include "kernels/cpu/targets.h"
// targets.h first.
#include "hwy/foreach_target.h"
// foreach_target.h first.
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/matmul_pack-inl.h"
#include "kernels/cpu/matmul_tile-inl.h"
#include "kernels/cpu/simd-inl.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/dtype.h"
#include "core/error.h"
#include "core/parallel.h"
#include "kernels/cpu/dot16_matmul.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/pairs.h"
#include "kernels/cpu/pairs_matmul.h"
#include "kernels/cpu/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Floats of one thread's packed A: on the stack, about half of a 1 MiB L2 cache.
inline constexpr int64_t kPackedA = 128 * 1024;
/// Most inner indices between two writes of C. A panel of B is then at most 96 KiB.
inline constexpr int64_t kMaxInner = 768;
/// Inner indices for which the backward products pack B at a time; at most kMaxInner.
inline constexpr int64_t kBackwardInner = 640;
/// Multiply-adds that are worth a thread.
inline constexpr int64_t kGrain = 1 << 17;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Where the chains start from.
enum class Start { kZero, kBias, kOutput };

/// Where multiply_part finds element (i, p) of A.
enum class OperandLayout {
  kRows,     ///< element (i, p) is a[i * a_stride + p]
  kColumns,  ///< element (i, p) is a[p * a_stride + i]
};

/// C [m, n] (+)= A [m, k] B [k, n], B in panels.
template <OperandLayout kLayout>
struct Product {
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  int64_t a_stride = 0;
  const float* b = nullptr;
  int64_t panel_stride = 0;  ///< elements of B from a panel to the next
  Start start = Start::kZero;
  const float* bias = nullptr;
  float* c = nullptr;
  int64_t c_stride = 0;
};

/// Sets what tile `index` of `count` fetches for tiles to come. Where B comes from
/// memory or the third-level cache, the hardware's prefetchers alone leave up to a
/// third of the bandwidth unused. The tiles of a block share the work of fetching the
/// slices that come next. A single tile walks through B once, so it fetches what lies a
/// little ahead, unless B (`bytes` of it here) fits the second-level cache; one or two
/// rows read four panels at once, which the hardware follows well by itself.
void plan_prefetch(Tile& tile, int64_t rows, int64_t slices, const float* next_slices,
                   int64_t index, int64_t count, int64_t bytes) {
  constexpr int64_t kAhead = 64, kAheadOfSlices = 16;  // rows of B, found by trial
  tile.next_b = nullptr;
  tile.next_b_step = std::max<int64_t>(tile.k, 1);
  if (count == 1) {
    const int64_t cached = slices == 1 ? 1 << 20 : 4 << 20;
    if (rows <= 2 || bytes <= cached) return;
    tile.next_b_step = 1;
    tile.next_b = tile.b + (slices == 1 ? kAhead : kAheadOfSlices) * kPanelWidth;
  } else if (next_slices != nullptr) {
    tile.next_b_step = count;
    tile.next_b = next_slices + ceil_div(tile.k, count) * index * kPanelWidth;
  }
}

/// One thread's part: rows [row_begin, row_end) and the columns of panels [panel_begin,
/// panel_end), over all k. Loops, from the outside: blocks of row tiles whose packed A
/// fits kPackedA; blocks of k; slices of columns; row tiles of the block.
template <OperandLayout kLayout>
void multiply_part(const Product<kLayout>& product, int64_t row_begin, int64_t row_end,
                   int64_t panel_begin, int64_t panel_end) {
  static constexpr float kZeros[kMaxSlices * kTileCols] = {};
  alignas(64) float a_packed[kPackedA + kPackSlack];
  alignas(64) float edge[kTileRows * kTileCols];
  alignas(64) float edge_bias[kTileCols];

  const int64_t k_blocks = std::max<int64_t>(ceil_div(product.k, kMaxInner), 1);
  const int64_t k_block =
      std::max<int64_t>(ceil_div(ceil_div(product.k, k_blocks), kPanelWidth), 1) * kPanelWidth;
  const int64_t block_tiles_max =
      std::max<int64_t>(kPackedA / (k_block * kTileRows + kPackSlack), 1);
  const int64_t tiles = ceil_div(row_end - row_begin, kTileRows);
  const int64_t blocks = ceil_div(tiles, block_tiles_max);
  const auto tile_row = [&](int64_t tile)
                            HWY_ATTR { return row_begin + (row_end - row_begin) * tile / tiles; };
  const int slices_max = slices_for_rows(ceil_div(row_end - row_begin, tiles));
  const int64_t slice_end = std::min(panel_end * kSlicesPerPanel, ceil_div(product.n, kTileCols));

  const int64_t b_bytes =
      (panel_end - panel_begin) * kPanelWidth * product.k * int64_t{sizeof(float)};

  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t tile_begin = tiles * block / blocks;
    const int64_t tile_end = tiles * (block + 1) / blocks;
    const int64_t block_row = tile_row(tile_begin);
    for (int64_t k0 = 0; k0 < product.k || k0 == 0; k0 += k_block) {
      const int64_t inner = std::min(k_block, product.k - k0);
      const auto a_of = [&](int64_t t) HWY_ATTR {
        return a_packed + (t - tile_begin) * (kTileRows * inner + kPackSlack);
      };
      if constexpr (kLayout == OperandLayout::kRows) {
        for (int64_t t = tile_begin; t < tile_end; ++t) {
          const int64_t row = tile_row(t), rows = tile_row(t + 1) - row;
          pack_rows(a_of(t), product.a + row * product.a_stride + k0, product.a_stride, rows,
                    inner);
        }
      } else {  // tiles inside, so that memory is read in order
        constexpr int64_t kRowsAhead = 8;
        for (int64_t p = 0; p < inner; ++p) {
          const float* const from = product.a + (k0 + p) * product.a_stride;
          for (int64_t t = tile_begin; t < tile_end; ++t) {
            const int64_t row = tile_row(t), rows = tile_row(t + 1) - row;
            // It lies in another page, where the hardware does not prefetch.
            hwy::Prefetch(from + row + kRowsAhead * product.a_stride);
            copy_row(a_of(t) + p * rows, from + row, rows);
          }
        }
      }
      const auto b_of = [&](int64_t slice) HWY_ATTR {
        return product.b + slice / kSlicesPerPanel * product.panel_stride +
               slice % kSlicesPerPanel * kTileCols + k0 * kPanelWidth;
      };
      const Start start = k0 == 0 ? product.start : Start::kOutput;
      for (int64_t slice = panel_begin * kSlicesPerPanel, slices = 1; slice < slice_end;
           slice += slices) {
        const int64_t column = slice * kTileCols;
        const int64_t full = (product.n - column) / kTileCols;
        slices = slices_max;
        while (slices > 1 && slices > std::min(full, slice_end - slice)) slices /= 2;
        const bool partial = full == 0;
        const bool more = slice + slices < slice_end;
        Tile tile;
        tile.k = inner;
        tile.b = b_of(slice);
        tile.panel_stride = product.panel_stride;
        tile.c_stride = product.c_stride;
        if (start == Start::kZero) tile.init = kZeros;
        if (start == Start::kBias) {
          tile.init = product.bias + column;
          if (partial) {
            std::copy(product.bias + column, product.bias + product.n, edge_bias);
            std::fill(edge_bias + (product.n - column), edge_bias + kTileCols, 0.0f);
            tile.init = edge_bias;
          }
        }
        for (int64_t t = tile_begin; t < tile_end; ++t) {
          const int64_t row = tile_row(t), rows = tile_row(t + 1) - row;
          float* const c = product.c + row * product.c_stride + column;
          tile.a = a_of(t);
          tile.c = c;
          if (partial) {  // invariant 5
            tile.c = edge;
            tile.c_stride = kTileCols;
            if (start == Start::kOutput) {
              std::fill(edge, edge + kTileRows * kTileCols, 0.0f);
              for (int64_t r = 0; r < rows; ++r) {
                std::copy(c + r * product.c_stride, c + r * product.c_stride + product.n - column,
                          edge + r * kTileCols);
              }
            }
          }
          if (start == Start::kOutput) {
            tile.init = tile.c;
            tile.init_stride = tile.c_stride;
          }
          tile.next_c = t + 1 < tile_end ? c + rows * product.c_stride
                                         : product.c + block_row * product.c_stride + column +
                                               slices * kTileCols;
          plan_prefetch(tile, rows, slices, more ? b_of(slice + slices) : nullptr, t - tile_begin,
                        tile_end - tile_begin, b_bytes);
          tile_function(rows, slices)(tile);
          if (partial) {
            for (int64_t r = 0; r < rows; ++r) {
              std::copy(edge + r * kTileCols, edge + r * kTileCols + product.n - column,
                        c + r * product.c_stride);
            }
          }
        }
      }
    }
  }
}

/// Shares the product among threads: by panels, or by rows where there are few panels
/// and enough rows.
template <OperandLayout kLayout>
void multiply(const Context& ctx, const Product<kLayout>& product) {
  const int64_t panels = ceil_div(product.n, kPanelWidth);
  const int64_t tiles = ceil_div(product.m, kTileRows);
  const int64_t work = product.m * std::max<int64_t>(product.k, 1) * kPanelWidth;  // of a panel
  if (tiles >= 4 * ctx.threads && panels < 32 * ctx.threads) {
    const int64_t grain =
        std::max<int64_t>(kGrain / (std::max<int64_t>(product.k, 1) * product.n), kTileRows);
    parallel_for(ctx, product.m, grain, [&](int64_t begin, int64_t end) {
      multiply_part(product, begin, end, 0, panels);
    });
  } else {
    parallel_for(ctx, panels, ceil_div(kGrain, work), [&](int64_t begin, int64_t end) {
      multiply_part(product, 0, product.m, begin, end);
    });
  }
}

void pack_weight_f32(const Context& ctx, Mat<const float> w, float* out) {
  parallel_for(ctx, ceil_div(w.rows, kPanelWidth), 4, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t row = panel * kPanelWidth;
      pack_panel(out + row * w.cols, cpu::row(w, row), w.stride,
                 std::min(w.rows - row, kPanelWidth), w.cols);
    }
  });
}

void forward(const Context& ctx, Mat<float> y, Mat<const float> x, const float* w,
             const float* bias, bool accumulate) {
  Product<OperandLayout::kRows> product;
  product.m = y.rows, product.n = y.cols, product.k = x.cols;
  product.a = x.data, product.a_stride = x.stride;
  product.b = w, product.panel_stride = x.cols * kPanelWidth;
  product.start = accumulate ? Start::kOutput : bias != nullptr ? Start::kBias : Start::kZero;
  product.bias = bias;
  product.c = y.data, product.c_stride = y.stride;
  multiply(ctx, product);
}

/// dx = dy W: the rows of W, cut into panels of their own, are B. They come from the
/// packed weight, whose panels of 32 rows are transposed block by block; at most
/// kBackwardInner rows at a time, so that they stay in the cache.
void backward_input(const Context& ctx, Mat<float> dx, Mat<const float> dy, const float* w,
                    bool accumulate) {
  const int64_t n = dy.cols, k = dx.cols;
  const int64_t panels = ceil_div(k, kPanelWidth);
  const int64_t blocks = std::max<int64_t>(ceil_div(n, kBackwardInner), 1);
  const int64_t block =
      std::max<int64_t>(ceil_div(ceil_div(n, blocks), kPanelWidth), 1) * kPanelWidth;
  cpu::ScratchScope scratch;
  float* const packed = scratch.alloc<float>(panels * kPanelWidth * block);
  const Context& team = dy.rows * n * k < kGrain ? Context{.threads = 1} : ctx;
  Product<OperandLayout::kRows> product;
  product.m = dx.rows, product.n = k;
  product.a_stride = dy.stride;
  product.b = packed;
  product.start = accumulate ? Start::kOutput : Start::kZero;
  product.c = dx.data, product.c_stride = dx.stride;
  for (int64_t n0 = 0; n0 < n || n0 == 0; n0 += block) {
    const int64_t inner = std::min(block, n - n0);
    product.k = inner, product.a = dy.data + n0, product.panel_stride = inner * kPanelWidth;
    parallel_for(team, ceil_div(inner, kPanelWidth), 1, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin * kPanelWidth; j < std::min(end * kPanelWidth, inner);
           j += kPanelWidth) {
        for (int64_t panel = 0; panel < panels; ++panel) {
          const int64_t p = panel * kPanelWidth;
          transpose_block(packed + panel * product.panel_stride + j * kPanelWidth,
                          w + (n0 + j) * k + p * kPanelWidth, std::min(k - p, kPanelWidth),
                          std::min(inner - j, kPanelWidth));
        }
      }
    });
    multiply(team, product);
    product.start = Start::kOutput;
  }
}

/// dw (+)= dy^T x: dy's columns are the rows of A, the rows of x are B.
void backward_weight(const Context& ctx, Mat<float> dw, Mat<const float> dy, Mat<const float> x,
                     bool accumulate) {
  const int64_t m = dy.rows;
  const int64_t panels = ceil_div(x.cols, kPanelWidth);
  const int64_t block = std::min(kBackwardInner, m);
  cpu::ScratchScope scratch;
  float* const packed = scratch.alloc<float>(panels * kPanelWidth * block);
  Product<OperandLayout::kColumns> product;
  product.m = dw.rows, product.n = dw.cols;
  product.a_stride = dy.stride;
  product.b = packed;
  product.start = accumulate ? Start::kOutput : Start::kZero;
  product.c = dw.data, product.c_stride = dw.stride;
  for (int64_t m0 = 0; m0 < m; m0 += block) {
    const int64_t inner = std::min(block, m - m0);
    product.k = inner, product.a = cpu::row(dy, m0), product.panel_stride = inner * kPanelWidth;
    parallel_for(ctx, panels, ceil_div(kGrain / 16, inner * kPanelWidth),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t panel = begin; panel < end; ++panel) {
                     const int64_t p = panel * kPanelWidth;
                     copy_panel(packed + panel * product.panel_stride, cpu::row(x, m0) + p,
                                x.stride, std::min(x.cols - p, kPanelWidth), inner);
                   }
                 });
    multiply(ctx, product);
    product.start = Start::kOutput;
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(pack_weight_f32);
HWY_EXPORT(forward);
HWY_EXPORT(backward_input);
HWY_EXPORT(backward_weight);

size_t packed_weight_bytes(const Context& ctx, const PackedWeightBytes& op) {
  if (op.dtype == DType::kBF16 && ctx.device.dot16()) return dot16_packed_weight_bytes(op.n, op.k);
  // bf16 panels have whole blocks of pairs.
  const int64_t rows = op.dtype == DType::kBF16 ? kPairsBlock : 1;
  const int64_t panels = op.n / kPanelWidth + (op.n % kPanelWidth != 0);
  const int64_t blocks = op.k / rows + (op.k % rows != 0);
  const int64_t block_bytes = rows * kPanelWidth * dtype_bytes(op.dtype);
  ORRERY_CHECK(blocks == 0 || panels <= std::numeric_limits<int64_t>::max() / block_bytes / blocks,
               "packed_weight_bytes: weight [{}, {}] is too large", op.n, op.k);
  return panels * blocks * block_bytes;
}

void pack_weight(const Context& ctx, const PackWeight& op) {
  if (op.dtype == DType::kBF16)
    return ctx.device.dot16() ? dot16_pack_weight(ctx, op) : pairs_pack_weight(ctx, op);
  HWY_DYNAMIC_DISPATCH(pack_weight_f32)(ctx, op.weight, static_cast<float*>(op.memory));
}

void matmul_forward(const Context& ctx, const MatmulForward& op) {
  if (op.weight.dtype == DType::kBF16)
    return ctx.device.dot16() ? dot16_matmul_forward(ctx, op) : pairs_matmul_forward(ctx, op);
  HWY_DYNAMIC_DISPATCH(forward)
  (ctx, op.y.as<float>(), op.x.as<const float>(), static_cast<const float*>(op.weight.data),
   op.bias.empty() ? nullptr : op.bias.data, op.accumulate);
}

void matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op) {
  if (op.weight.dtype == DType::kBF16) {
    return ctx.device.dot16() ? dot16_matmul_backward_input(ctx, op)
                              : pairs_matmul_backward_input(ctx, op);
  }
  HWY_DYNAMIC_DISPATCH(backward_input)
  (ctx, op.dx.as<float>(), op.dy.as<const float>(), static_cast<const float*>(op.weight.data),
   op.accumulate);
}

void matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op) {
  if (op.dy.rows == 0) {  // nothing is added
    for (int64_t j = 0; !op.accumulate && j < op.dw.rows; ++j)
      std::fill_n(row(op.dw, j), op.dw.cols, 0.0f);
    return;
  }
  if (op.dy.dtype == DType::kBF16) {
    return ctx.device.dot16() ? dot16_matmul_backward_weight(ctx, op)
                              : pairs_matmul_backward_weight(ctx, op);
  }
  HWY_DYNAMIC_DISPATCH(backward_weight)
  (ctx, op.dw, op.dy.as<const float>(), op.x.as<const float>(), op.accumulate);
}

}  // namespace orrery::kernels::cpu
#endif  // HWY_ONCE
