// C [m, n] (+)= A B of bf16 operands on tiles (TileEngine): which elements meet when,
// and where they lie then. A product of tiles takes less time than fetching its
// operands from beyond the second-level cache does, hence
//   - A stays where it is, as long as its rows are whole blocks; a block of its rows
//     lies in the second-level cache while panels of B come by;
//   - the panel that comes next is fetched beside the products, a few lines a block: in
//     one go it would keep the cache's line buffers from them;
//   - dW, whose inner dimension is short and whose C is large, goes by rows of C.
#include "kernels/cpu/pairs_engines-inl.h"
#include "kernels/cpu/pairs_matmul_pack-inl.h"
#include "kernels/cpu/pairs_product-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_PAIRS_TILE_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_PAIRS_TILE_MATMUL_INL_H_
#undef ORRERY_KERNELS_CPU_PAIRS_TILE_MATMUL_INL_H_
#else
#define ORRERY_KERNELS_CPU_PAIRS_TILE_MATMUL_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "core/dtype.h"
#include "core/parallel.h"
#include "core/tensor.h"
#include "kernels/cpu/flush.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/pairs.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace pairs {

/// Rows and columns of C that four tiles hold.
inline constexpr int64_t kTileSide = 32;
static_assert(kTileSide == kPanelWidth);
inline constexpr int64_t kTileWidth = TileEngine<AmxTiles>::kSquareWidth;
/// Bytes of A that stay in the second-level cache, half of its 2 MiB; and of those that
/// are packed, on the stack.
inline constexpr int64_t kMostLeft = 1024 * 1024, kMostPacked = 512 * 1024;
static_assert(kTileSide * kMaxInner * int64_t{sizeof(Bf16)} <= kMostPacked);

/// Rows of A for one row of tiles.
struct LeftTile {
  const Bf16* data = nullptr;
  int64_t row = kPairsBlock;  ///< elements to the next row
  int64_t block = 0;          ///< elements to the next block
};

/// A block of rows of A: in place, but for a ragged last tile; or packed.
struct LeftRows {
  int64_t rows = 0, blocks = 0;
  Mat<const Bf16> in_place;  ///< whole tiles of its rows are taken; or null
  const Bf16* packed = nullptr;

  LeftTile tile(int64_t t) const {
    const int64_t row = t * kTileSide, tile_rows = std::min(rows - row, kTileSide);
    if (in_place.data != nullptr && tile_rows % 16 == 0)
      return {cpu::row(in_place, row), in_place.stride, kPairsBlock};
    const int64_t padded = ceil_div(tile_rows, 16) * 16;
    const int64_t before = in_place.data != nullptr ? 0 : row;
    return {packed + before * blocks * kPairsBlock, kPairsBlock, padded * kPairsBlock};
  }
};

/// What a thread does beside the products of a tile, a little for each block: the unit
/// for tiles leaves most of the core free. finish_...() do what is left over.
class Chores {
 public:
  /// Fetches a panel of B that comes later, `lines` cache lines a block; squares are
  /// `stride` elements apart.
  void fetch_panel(const Bf16* next, int64_t stride, int64_t lines) {
    panel_ = next, panel_stride_ = stride, panel_lines_ = lines, panel_line_ = 0;
  }
  /// Swaps the squares of the panel that comes next, `pieces` a block.
  void swap_panel(const Bf16* from, int64_t stride, int64_t blocks, Bf16* to, int64_t pieces) {
    from_ = from, from_stride_ = stride, swapped_ = to, pieces_ = pieces;
    piece_ = 0, pieces_left_ = blocks * kSwapPieces;
  }
  /// Transposes columns [col, col + 32) of dy's blocks of rows for the next row of
  /// tiles, a piece a block.
  void transpose_tile(const Product& product, int64_t col, Bf16* to) {
    columns_ = &product, col_ = col, transposed_ = to;
    column_piece_ = 0, column_pieces_ = product.blocks * kTransposePieces;
  }
  /// Fetches rows of C that are written next.
  void fetch_rows(const void* first, int64_t row_bytes, int64_t bytes, int64_t blocks) {
    rows_ = static_cast<const std::byte*>(first), row_bytes_ = row_bytes, width_ = bytes;
    rows_left_ = kTileSide, rows_at_once_ = ceil_div(kTileSide, std::max<int64_t>(blocks, 1));
  }
  /// Rounds whole sums [32, 32] into rows of C.
  void round_rows(const float* sums, Bf16* to, int64_t stride, int64_t blocks) {
    sums_ = sums, to_ = to, stride_ = stride;
    sums_left_ = kTileSide, sums_at_once_ = ceil_div(kTileSide, std::max<int64_t>(blocks, 1));
  }

  HWY_INLINE void operator()() {
    fetch_some_lines();
    fetch_some_rows();
    swap_some(pieces_);
    if (column_piece_ < column_pieces_) transpose_some();
    round_some_rows(sums_at_once_);
  }
  HWY_INLINE void finish_rows() { round_some_rows(kTileSide); }
  void finish_panel() { swap_some(pieces_left_); }
  void finish_tile() {
    while (column_piece_ < column_pieces_) transpose_some();
  }

 private:
  HWY_INLINE void fetch_some_lines() {
    constexpr int64_t kLine = 32;
    for (int64_t i = 0; i < panel_lines_; ++i) {
      __builtin_prefetch(panel_ + panel_line_, 0, 2);
      panel_line_ += kLine;
      if (panel_line_ == kSquare) panel_line_ = 0, panel_ += panel_stride_;
    }
  }
  HWY_INLINE void swap_some(int64_t most) {
    const int64_t count = std::min(pieces_left_, most);
    pieces_left_ -= count;
    for (int64_t i = 0; i < count; ++i) {
      swap_piece<kTileWidth>(from_, piece_, swapped_);
      if (++piece_ == kSwapPieces) piece_ = 0, from_ += from_stride_, swapped_ += kSquare;
    }
  }
  HWY_INLINE void transpose_some() {
    const int64_t block = column_piece_ / kTransposePieces,
                  piece = column_piece_ % kTransposePieces;
    const Mat<const Bf16>& a = columns_->a;
    const RowBlock& rows = columns_->row_blocks[block];
    Bf16* const to = transposed_ + block * kSquare;
    if (rows.count < kPairsBlock) {
      transpose_columns(a, rows, col_, kTileSide, to);
      column_piece_ += kTransposePieces;
    } else {
      transpose_piece(cpu::row(a, rows.first) + col_, a.stride, piece, to);
      ++column_piece_;
    }
  }
  HWY_INLINE void fetch_some_rows() {
    const int64_t count = std::min(rows_left_, rows_at_once_);
    rows_left_ -= count;
    for (int64_t i = 0; i < count; ++i, rows_ += row_bytes_) {
      __builtin_prefetch(rows_, 1);
      if (width_ > 64) __builtin_prefetch(rows_ + 64, 1);
    }
  }
  HWY_INLINE void round_some_rows(int64_t most) {
    const int64_t count = std::min(sums_left_, most);
    sums_left_ -= count;
    for (int64_t i = 0; i < count; ++i, sums_ += kPanelWidth, to_ += stride_)
      round(sums_, kPanelWidth, to_);
  }

  const Bf16* panel_ = nullptr;
  int64_t panel_stride_ = 0, panel_lines_ = 0, panel_line_ = 0;
  const Bf16* from_ = nullptr;
  Bf16* swapped_ = nullptr;
  int64_t from_stride_ = 0, pieces_ = 0, piece_ = 0, pieces_left_ = 0;
  const Product* columns_ = nullptr;
  Bf16* transposed_ = nullptr;
  int64_t col_ = 0, column_piece_ = 0, column_pieces_ = 0;
  const std::byte* rows_ = nullptr;
  int64_t row_bytes_ = 0, width_ = 0, rows_left_ = 0, rows_at_once_ = 0;
  const float* sums_ = nullptr;
  Bf16* to_ = nullptr;
  int64_t stride_ = 0, sums_left_ = 0, sums_at_once_ = 0;
};

/// A tile of C: its first row and column, and how many of C's it has.
struct Place {
  int64_t row = 0, rows = 0, col = 0, cols = 0;
  bool whole() const { return rows == kTileSide && cols == kPanelWidth; }
};
/// The one at row `row` of C and panel `p`, where rows end at `row_end`.
inline Place place_at(const Product& product, int64_t row, int64_t row_end, int64_t p) {
  const int64_t col = p * kPanelWidth;
  return {row, std::min(row_end - row, kTileSide), col,
          std::min(product.c.cols - col, kPanelWidth)};
}

/// Multiplies tile after tile. Sums are rounded beside the products of the next tile.
template <class Engine>
class TileWriter {
 public:
  explicit TileWriter(const Product& product) : product_(product) {}
  ~TileWriter() { chores.finish_rows(); }

  HWY_INLINE void multiply(const LeftTile& a, const Bf16* panel, const Place& at) {
    TileProduct tile;
    tile.a = a.data, tile.a_row = a.row, tile.a_block = a.block;
    tile.b = panel, tile.b_row = 2 * kTileWidth;
    tile.b_block = kSquare, tile.b_right = kSquare / 2;
    tile.blocks = product_.blocks;
    const bool from_zero = product_.bias == nullptr && product_.start.data == nullptr;
    tile.accumulate = !from_zero;
    if (product_.c.dtype == DType::kF32 && at.rows % 16 == 0 && at.cols == kPanelWidth &&
        (from_zero || product_.start.data == product_.c.data)) {
      tile.c = static_cast<float*>(product_.c.data) + at.row * product_.c.stride + at.col;
      tile.c_row = product_.c.stride;
      Engine::multiply_tile(tile, at.rows > 16, true, chores);
      return;
    }
    float* const sums = sums_[turn_ ^= 1];
    tile.c = sums, tile.c_row = kPanelWidth;
    if (!from_zero) {
      load_panel(product_, at.row, at.rows, ceil_div(at.rows, 16) * 16, at.col, at.cols, sums);
    }
    Engine::multiply_tile(tile, at.rows > 16, true, chores);
    chores.finish_rows();
    if (product_.c.dtype == DType::kBF16 && at.whole()) {
      chores.round_rows(sums,
                        static_cast<Bf16*>(product_.c.data) + at.row * product_.c.stride + at.col,
                        product_.c.stride, product_.blocks);
    } else {
      store_panel(sums, at.row, at.rows, at.col, at.cols, product_.c);
    }
  }
  /// Fetches the memory of the tile that comes after the next product.
  HWY_INLINE void fetch(const Place& at) {
    if (!at.whole()) return;
    const int64_t size = product_.c.dtype == DType::kBF16 ? 2 : 4;
    chores.fetch_rows(static_cast<const std::byte*>(product_.c.data) +
                          (at.row * product_.c.stride + at.col) * size,
                      product_.c.stride * size, kPanelWidth * size, product_.blocks);
  }

  Chores chores;

 private:
  const Product& product_;
  int turn_ = 0;
  alignas(64) float sums_[2][kTileSide * kPanelWidth];
};

/// A thread's work: panels [panel_begin, panel_end) of B, and a block of rows of A that
/// begins at row `row` of C.
struct Share {
  LeftRows left;
  int64_t row = 0;
  int64_t panel_begin = 0, panel_end = 0;
  Bf16* swapped[2] = {};  ///< for two panels, if they are to be swapped
};

/// Panels come one after another; each meets all tiles of the rows.
template <class Engine>
HWY_NOINLINE void multiply_share(const Product& product, const Share& share) {
  const int64_t tiles = ceil_div(share.left.rows, kTileSide);
  // One or two tiles wait for the panels' memory alone, which the CPU fetches better.
  const int64_t lines = tiles > 2 ? ceil_div(kSquare / 32, tiles) : 0;
  const int64_t pieces = ceil_div(kSwapPieces, tiles);
  const auto panel_of = [&](int64_t p) { return product.b + p * product.panel_stride; };
  const auto place_of = [&](int64_t p, int64_t t) {
    return place_at(product, share.row + t * kTileSide, share.row + share.left.rows, p);
  };
  TileWriter<Engine> writer(product);
  const auto swap = [&](int64_t p) {
    writer.chores.swap_panel(panel_of(p), product.block_stride, product.blocks,
                             share.swapped[p % 2], pieces);
  };
  if (product.swap) swap(share.panel_begin), writer.chores.finish_panel();
  for (int64_t p = share.panel_begin; p < share.panel_end; ++p) {
    if (product.swap && p + 1 < share.panel_end) swap(p + 1);
    const int64_t later = p + (product.swap ? 2 : 1);
    writer.chores.fetch_panel(panel_of(later), product.block_stride,
                              later < share.panel_end ? lines : 0);
    for (int64_t t = 0; t < tiles; ++t) {
      if (t + 1 < tiles) {
        writer.fetch(place_of(p, t + 1));
      } else if (p + 1 < share.panel_end) {
        writer.fetch(place_of(p + 1, 0));
      }
      writer.multiply(share.left.tile(t), product.swap ? share.swapped[p % 2] : panel_of(p),
                      place_of(p, t));
    }
    writer.chores.finish_panel();
  }
}
template <class Engine>
HWY_NOINLINE void multiply_share_flushed(const Product& product, const Share& share) {
  const cpu::FlushScope flush;
  multiply_share<Engine>(product, share);
}

/// Rows [row_begin, row_end) of C, the columns of panels [panel_begin, panel_end).
template <class Engine>
void multiply_panels(const Product& product, int64_t row_begin, int64_t row_end,
                     int64_t panel_begin, int64_t panel_end) {
  alignas(64) Bf16 packed[kMostPacked / int64_t{sizeof(Bf16)}];
  alignas(64) Bf16 swapped[2][kMaxInner / kPairsBlock * kSquare];
  const bool in_place = product.a.cols % kPairsBlock == 0;
  const int64_t row_bytes = std::max<int64_t>(product.blocks, 1) * kPairsBlock * sizeof(Bf16);
  const int64_t most = (in_place ? kMostLeft : kMostPacked) / row_bytes / kTileSide;
  const int64_t all = ceil_div(row_end - row_begin, kTileSide);
  const int64_t step = ceil_div(all, ceil_div(all, most)) * kTileSide;
  for (int64_t row = row_begin; row < row_end; row += step) {
    LeftRows left{.rows = std::min(row_end - row, step), .blocks = product.blocks};
    left.packed = packed;
    int64_t first = 0;
    if (in_place) {
      left.in_place = product.a.row_range(row, row + left.rows);
      first = left.rows % 16 == 0 ? left.rows : left.rows / kTileSide * kTileSide;
    }
    for (int64_t r = first; r < left.rows; r += kTileSide) {
      const int64_t rows = std::min(left.rows - r, kTileSide);
      pack_left_rows(product.a.row_range(row + r, row + r + rows), ceil_div(rows, 16) * 16,
                     packed + (r - first) * product.blocks * kPairsBlock);
    }
    multiply_share_flushed<Engine>(product,
                                   {left, row, panel_begin, panel_end, {swapped[0], swapped[1]}});
  }
}

/// dW, whose A is transposed: rows [begin, end) of C, tile by tile; each meets all
/// panels, while the tile after it is transposed. `left` has room for two.
template <class Engine>
HWY_NOINLINE void multiply_columns(const Product& product, int64_t begin, int64_t end,
                                   Bf16* const (&left)[2]) {
  const int64_t panels = ceil_div(product.c.cols, kPanelWidth);
  const auto place_of = [&](int64_t row, int64_t p) { return place_at(product, row, end, p); };
  TileWriter<Engine> writer(product);
  int turn = 0;
  const auto transpose = [&](int64_t row) {
    if (end - row >= kTileSide) return writer.chores.transpose_tile(product, row, left[turn]);
    for (int64_t block = 0; block < product.blocks; ++block) {
      transpose_columns(product.a, product.row_blocks[block], row, end - row,
                        left[turn] + block * kSquare);
    }
  };
  transpose(begin);
  for (int64_t row = begin; row < end; row += kTileSide) {
    writer.chores.finish_tile();
    const LeftTile a{left[turn], kPairsBlock, kSquare};
    turn ^= 1;
    if (row + kTileSide < end) transpose(row + kTileSide);
    for (int64_t p = 0; p < panels; ++p) {
      if (p + 1 < panels) {
        writer.fetch(place_of(row, p + 1));
      } else if (row + kTileSide < end) {
        writer.fetch(place_of(row + kTileSide, 0));
      }
      writer.multiply(a, product.b + p * product.panel_stride, place_of(row, p));
    }
  }
}
template <class Engine>
HWY_NOINLINE void multiply_columns_flushed(const Product& product, int64_t begin, int64_t end,
                                           Bf16* const (&left)[2]) {
  const cpu::FlushScope flush;
  multiply_columns<Engine>(product, begin, end, left);
}

template <class Tiles>
void multiply_on(TileEngine<Tiles> /*unused*/, const Context& ctx, const Product& product) {
  using Engine = TileEngine<Tiles>;
  const int64_t m = product.c.rows, inner = std::max<int64_t>(product.blocks, 1) * kPairsBlock;
  const int64_t panels = ceil_div(product.c.cols, kPanelWidth);
  const int64_t tiles = ceil_div(m, kTileSide);
  if (product.row_blocks != nullptr) {
    const int64_t work = kTileSide * inner * product.c.cols;
    parallel_for(ctx, tiles, ceil_div(kGrain, work), [&](int64_t begin, int64_t end) {
      alignas(64) Bf16 left[2][kTileSide * kMaxInner];
      Tiles::configure();
      multiply_columns_flushed<Engine>(product, begin * kTileSide, std::min(end * kTileSide, m),
                                       {left[0], left[1]});
    });
    return;
  }
  // Panels come from afar, so a thread takes as many rows as it can; but no more parts
  // of rows than tiles.
  const int64_t parts = std::clamp<int64_t>(ceil_div(4 * ctx.threads, panels), 1, tiles);
  const int64_t work = ceil_div(m, parts) * inner * kPanelWidth;
  parallel_for(ctx, parts * panels, ceil_div(kGrain, work), [&](int64_t begin, int64_t end) {
    Tiles::configure();
    for (int64_t at = begin; at < end;) {
      const int64_t part = at / panels, first = at % panels;
      const int64_t count = std::min(panels - first, end - at);
      multiply_panels<Engine>(product, tiles * part / parts * kTileSide,
                              std::min(tiles * (part + 1) / parts * kTileSide, m), first,
                              first + count);
      at += count;
    }
  });
}

}  // namespace pairs
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // HWY_AVX3

#endif  // per-target include guard
