#include "kernels/cpu/dot16_matmul.h"

#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "kernels/cpu/dot16.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/scratch.h"

namespace orrery::kernels::cpu {
namespace {

constexpr int64_t kPanel = kDot16Panel;
/// Elements of a square of a packed weight.
constexpr int64_t kSquare = kPanel * kPanel;
/// Most rows and panels of a product that one thread computes at once: packing a row of
/// A costs about as much as multiplying it by a fifth of a panel.
constexpr int64_t kTileRows = 128, kTilePanels = 8;
/// Multiply-adds that are worth a thread.
constexpr int64_t kGrain = 1 << 15;

/// An [m, n] matrix in tiles of whole panels and about as many rows each: large ones
/// where there are enough for the threads.
struct Tiles {
  int64_t m, n, row_tiles, panels, tile_panels;

  Tiles(int64_t m_, int64_t n_, int threads)
      : m(m_), n(n_), row_tiles(ceil_div(m, kTileRows)), panels(ceil_div(n, kPanel)) {
    const int64_t wanted = threads > 1 ? 4 * int64_t{threads} : 1;
    tile_panels = std::clamp<int64_t>(row_tiles * panels / wanted, 1, kTilePanels);
  }
  int64_t count() const { return row_tiles * ceil_div(panels, tile_panels); }
  struct Tile {
    int64_t row, rows, column, columns;
  };
  Tile at(int64_t i) const {
    const int64_t wide = ceil_div(panels, tile_panels);
    const int64_t r = i / wide, c = i % wide * tile_panels * kPanel;
    const int64_t row = m * r / row_tiles;
    return {row, m * (r + 1) / row_tiles - row, c, std::min(tile_panels * kPanel, n - c)};
  }
};

/// Calls body(tile) for all tiles of a product over k inner indices.
template <class Body>
void for_tiles(const Context& ctx, int64_t m, int64_t n, int64_t k, const Body& body) {
  const int64_t threads = std::clamp<int64_t>(m * n * k / kGrain, 1, ctx.threads);
  const Context team{.device = ctx.device, .threads = static_cast<int>(threads)};
  const Tiles tiles(m, n, team.threads);
  parallel_items(team, tiles.count(), [&](int64_t i) { body(tiles.at(i)); });
}

/// `store` takes a part of the product's result: where it begins, and its sums.
template <class Store>
void multiply(const Context& ctx, const Dot16Product& product, const Store& store) {
  for_tiles(ctx, product.m, product.n, product.k, [&](const Tiles::Tile& tile) {
    ScratchScope scratch;
    Dot16Product part = product;
    part.m = tile.rows, part.n = tile.columns;
    part.a += tile.row * product.a_row;
    part.b = dot16_b(product, 0, tile.column);
    part.c_stride = ceil_div(tile.columns, kPanel) * kPanel;
    part.c = scratch.alloc<float>(tile.rows * part.c_stride);
    dot16_product(part);
    store(tile.row, tile.column, part);
  });
}

/// Stores sums in `to`, rounded where it is bf16, after the bias or what is there has
/// been added.
void store(const ActMat& to, int64_t i, int64_t j, const Dot16Product& sums, const float* bias,
           bool accumulate) {
  for (int64_t r = 0; r < sums.m; ++r) {
    float* const from = sums.c + r * sums.c_stride;
    for (int64_t c = 0; bias != nullptr && c < sums.n; ++c) from[c] = from[c] + bias[j + c];
    if (to.dtype == DType::kBF16) {
      Bf16* const out = row(to.as<Bf16>(), i + r) + j;
      for (int64_t c = 0; c < sums.n; ++c) out[c] = to_bf16(from[c]);
    } else {
      float* const out = row(to.as<float>(), i + r) + j;
      for (int64_t c = 0; c < sums.n; ++c) out[c] = accumulate ? out[c] + from[c] : from[c];
    }
  }
}

/// The panel of a packed weight's features [64 panel, 64 panel + 64).
void pack_panel(const Mat<const float>& weight, int64_t panel, Bf16* to) {
  constexpr int64_t kColumns = 16;
  const int64_t first = panel * kPanel, rows = std::min(kPanel, weight.rows - first);
  for (int64_t k = 0; k < weight.cols; k += kColumns) {
    const int64_t count = std::min(kColumns, weight.cols - k);
    for (int64_t r = 0; r < kPanel; ++r) {
      for (int64_t i = 0; i < count; ++i) {
        to[(k + i) * kPanel + r] =
            r < rows ? Bf16{f32_to_bf16_half_away(row(weight, first + r)[k + i])} : Bf16{0};
      }
    }
  }
}

}  // namespace

size_t dot16_packed_weight_bytes(int64_t n, int64_t k) {
  constexpr int64_t kBytes = kPanel * int64_t{sizeof(Bf16)};
  const int64_t panels = n / kPanel + (n % kPanel != 0);
  ORRERY_CHECK(k == 0 || panels <= std::numeric_limits<int64_t>::max() / kBytes / k,
               "packed_weight_bytes: weight [{}, {}] is too large", n, k);
  return static_cast<size_t>(panels * k * kBytes);
}

void dot16_pack_weight(const Context& ctx, const PackWeight& op) {
  auto* const to = static_cast<Bf16*>(op.memory);
  parallel_for(ctx, ceil_div(op.weight.rows, kPanel), 2, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel)
      pack_panel(op.weight, panel, to + panel * op.weight.cols * kPanel);
  });
}

void dot16_matmul_forward(const Context& ctx, const MatmulForward& op) {
  const auto x = op.x.as<const Bf16>();
  const Dot16Product product{.m = op.y.rows,
                             .n = op.y.cols,
                             .k = op.x.cols,
                             .a = x.data,
                             .a_row = x.stride,
                             .b = static_cast<const Bf16*>(op.weight.data),
                             .b_inner = kPanel,
                             .b_column = 1,
                             .b_column64 = op.weight.k * kPanel};
  multiply(ctx, product, [&](int64_t i, int64_t j, const Dot16Product& sums) {
    store(op.y, i, j, sums, op.bias.empty() ? nullptr : op.bias.data, op.accumulate);
  });
}

void dot16_matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op) {
  const auto dy = op.dy.as<const Bf16>();
  const Dot16Product product{.m = op.dx.rows,
                             .n = op.dx.cols,
                             .k = op.dy.cols,
                             .a = dy.data,
                             .a_row = dy.stride,
                             .b = static_cast<const Bf16*>(op.weight.data),
                             .b_inner = 1,
                             .b_column = kPanel,
                             .b_inner64 = op.weight.k * kPanel,
                             .b_column64 = kSquare};
  multiply(ctx, product, [&](int64_t i, int64_t j, const Dot16Product& sums) {
    store(op.dx, i, j, sums, nullptr, op.accumulate);
  });
}

void dot16_matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op) {
  const auto dy = op.dy.as<const Bf16>(), x = op.x.as<const Bf16>();
  for_tiles(ctx, op.dw.rows, op.dw.cols, op.dy.rows, [&](const Tiles::Tile& tile) {
    int64_t from = 0;
    bool accumulate = op.accumulate;
    const auto add_run = [&](int64_t to) {
      if (to == from) return;
      dot16_product({.m = tile.rows,
                     .n = tile.columns,
                     .k = to - from,
                     .a = row(dy, from) + tile.row,
                     .a_row = 1,
                     .a_inner = dy.stride,
                     .b = row(x, from) + tile.column,
                     .b_inner = x.stride,
                     .b_column = 1,
                     .c = row(op.dw, tile.row) + tile.column,
                     .c_stride = op.dw.stride,
                     .accumulate = accumulate});
      from = to;
      accumulate = true;
    };
    for (const int64_t end_of_run : op.run_ends) add_run(end_of_run);
    add_run(op.dy.rows);
  });
}

}  // namespace orrery::kernels::cpu
