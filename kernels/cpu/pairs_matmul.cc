// Matrix products of linear layers whose operands are bf16 (docs/numerics.md, "Pairs").
// Every element of C is summed over blocks of 32 inner indices in order, by one thread.
// The inner dimension may be cut between blocks: the sums then lie in memory as f32,
// which rounds nothing, and the next part goes on from there.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pairs_matmul.cc"
#include "kernels/cpu/targets.h"
// targets.h first.
#include "hwy/foreach_target.h"
// foreach_target.h first.
#include "kernels/cpu/pairs_matmul-inl.h"
#include "kernels/cpu/pairs_matmul.h"
#include "kernels/cpu/pairs_matmul_pack-inl.h"
#include "kernels/cpu/pairs_product-inl.h"
#include "kernels/cpu/pairs_tile_matmul-inl.h"
#include "kernels/cpu/simd-inl.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"
#include "core/parallel.h"
#include "kernels/cpu/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

using pairs::ceil_div;
using pairs::kPairsBlock;
using pairs::kPanelWidth;
using pairs::kSquare;

/// Inner indices for which the backward products pack B at a time.
inline constexpr int64_t kBackwardInner = 1024;
/// The same for tiles' dX, whose panels lie on the stack.
inline constexpr int64_t kTileBackwardInner = 2048;
/// Most rows of a forward product that vectors multiply in place of tiles.
inline constexpr int64_t kRowsForVectors = 8;

template <class Engine>
void pack_for(const Context& ctx, Mat<const float> w, Bf16* out) {
  const int64_t blocks = ceil_div(w.cols, kPairsBlock);
  parallel_for(ctx, ceil_div(w.rows, kPanelWidth), 4, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int64_t block = 0; block < blocks; ++block) {
        pairs::pack_square<Engine::kSquareWidth>(w, panel * kPanelWidth, block * kPairsBlock,
                                                 out + (panel * blocks + block) * kSquare);
      }
    }
  });
}

/// C = A B over all inner indices, at most `most` of them at a time. panels_of(first,
/// part) puts B's panels of the part's inner indices, which begin at `first`, into it.
template <class Engine, class PanelsOf>
void multiply_cut(const Context& ctx, pairs::Product product, int64_t most,
                  cpu::ScratchScope& scratch, PanelsOf&& panels_of) {
  const Mat<const Bf16> a = product.a;
  const ActMat c = product.c;
  const int64_t parts = std::max<int64_t>(ceil_div(a.cols, most), 1);
  const int64_t part =
      std::max<int64_t>(ceil_div(ceil_div(a.cols, parts), kPairsBlock), 1) * kPairsBlock;
  Mat<float> sums;  // between two parts
  if (parts > 1) {
    sums = c.dtype == DType::kF32 ? c.as<float>()
                                  : Mat<float>(scratch.alloc<float>(c.size()), c.rows, c.cols);
  }
  for (int64_t first = 0; first < a.cols || first == 0; first += part) {
    const int64_t count = std::min(part, a.cols - first);
    product.a = a.col_range(first, first + count);
    product.blocks = ceil_div(count, kPairsBlock);
    product.c = first + count < a.cols ? ActMat(sums) : c;
    panels_of(first, product);
    pairs::multiply_on(Engine(), ctx, product);
    product.bias = nullptr, product.start = sums;
  }
}

template <class Engine>
void forward_on(const Context& ctx, const MatmulForward& op) {
  pairs::Product product;
  product.a = op.x.as<const Bf16>();
  product.c = op.y;
  if (op.accumulate) product.start = op.y.as<float>();
  if (!op.bias.empty()) product.bias = op.bias.data;
  product.panel_stride = ceil_div(op.x.cols, kPairsBlock) * kSquare;
  product.square_width = Engine::kSquareWidth;
  cpu::ScratchScope scratch;
  const auto panels_of = [&](int64_t first, pairs::Product& part) {
    part.b = static_cast<const Bf16*>(op.weight.data) + first * kPanelWidth;
  };
  // Few rows wait for W's memory, which vectors stream faster than tiles do.
  if (op.x.rows <= kRowsForVectors)
    return multiply_cut<pairs::VectorEngine>(ctx, product, pairs::kMaxInner, scratch, panels_of);
  multiply_cut<Engine>(ctx, product, pairs::kMaxInner, scratch, panels_of);
}

/// dx = dy W: the rows of W in pairs are B. They come from the packed weight, a panel
/// of which has 32 of them.
template <class Engine>
void backward_input_on(const Context& ctx, const MatmulBackwardInput& op) {
  pairs::Product product;
  product.a = op.dy.as<const Bf16>();
  product.c = op.dx;
  if (op.accumulate) product.start = op.dx.as<float>();
  const auto* const w = static_cast<const Bf16*>(op.weight.data);
  const int64_t panels = ceil_div(op.dx.cols, kPanelWidth);
  const Context& team = op.dy.size() * op.dx.cols < pairs::kGrain ? Context{.threads = 1} : ctx;
  // Tiles swap a panel of squares beside the products of the one before.
  constexpr bool kSwapsItself = !std::is_same_v<Engine, pairs::VectorEngine>;
  constexpr int64_t kMost = kSwapsItself ? kTileBackwardInner : kBackwardInner;
  cpu::ScratchScope scratch;
  Bf16* packed = nullptr;
  if (!kSwapsItself) {
    const int64_t inner = ceil_div(std::min(op.dy.cols, kMost), kPairsBlock) * kPairsBlock;
    packed = scratch.alloc<Bf16>(panels * kPanelWidth * inner);
  }
  multiply_cut<Engine>(team, product, kMost, scratch, [&](int64_t first, pairs::Product& part) {
    const Bf16* const from = w + first / kPanelWidth * panels * kSquare;
    if constexpr (kSwapsItself) {
      part.b = from, part.panel_stride = kSquare, part.block_stride = panels * kSquare;
      part.swap = true;
    } else {
      part.b = packed, part.panel_stride = part.blocks * kSquare;
      parallel_for(team, part.blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
          for (int64_t panel = 0; panel < panels; ++panel) {
            pairs::swap_square<Engine::kSquareWidth>(
                from + (block * panels + panel) * kSquare,
                packed + panel * part.panel_stride + block * kSquare);
          }
        }
      });
    }
  });
}

/// Blocks of 32 rows that begin anew at each run.
int64_t count_row_blocks(Span<const int64_t> run_ends) {
  int64_t count = 0, first = 0;
  for (const int64_t end : run_ends) count += ceil_div(end - first, kPairsBlock), first = end;
  return count;
}
void list_row_blocks(Span<const int64_t> run_ends, pairs::RowBlock* to) {
  int64_t first = 0;
  for (const int64_t end : run_ends) {
    for (; first < end; first += to++->count) *to = {first, std::min(end - first, kPairsBlock)};
  }
}

/// dw (+)= dy^T x: dy's columns are the rows of A, the rows of x in pairs are B.
/// REQUIRES: one row at least.
template <class Engine>
void backward_weight_on(const Context& ctx, const MatmulBackwardWeight& op) {
  const Mat<const Bf16> x = op.x.as<const Bf16>();
  const int64_t one_run[] = {x.rows};
  const Span<const int64_t> run_ends =
      op.run_ends.empty() ? Span<const int64_t>(one_run) : op.run_ends;
  const int64_t blocks = count_row_blocks(run_ends);
  const int64_t panels = ceil_div(x.cols, kPanelWidth);
  const int64_t parts = ceil_div(blocks, kBackwardInner / kPairsBlock);
  cpu::ScratchScope scratch;
  auto* const row_blocks = scratch.alloc<pairs::RowBlock>(blocks);
  list_row_blocks(run_ends, row_blocks);
  const int64_t most = ceil_div(blocks, parts);
  Bf16* const packed = scratch.alloc<Bf16>(panels * most * kSquare);
  pairs::Product product;
  product.a = op.dy.as<const Bf16>();
  product.b = packed;
  if (op.accumulate) product.start = op.dw;
  product.c = op.dw;
  for (int64_t first = 0; first < blocks; first += most) {
    product.blocks = std::min(most, blocks - first);
    product.row_blocks = row_blocks + first;
    product.panel_stride = product.blocks * kSquare;
    parallel_for(ctx, panels, ceil_div(pairs::kGrain / 16, product.panel_stride),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t panel = begin; panel < end; ++panel) {
                     for (int64_t block = 0; block < product.blocks; ++block) {
                       pairs::zip_square<Engine::kSquareWidth>(
                           x, product.row_blocks[block], panel * kPanelWidth,
                           packed + panel * product.panel_stride + block * kSquare);
                     }
                   }
                 });
    pairs::multiply_on(Engine(), ctx, product);
    product.start = op.dw;
  }
}

void pairs_pack(const Context& ctx, Mat<const float> w, Bf16* out) {
  pairs::with_engine([&](auto engine) { pack_for<decltype(engine)>(ctx, w, out); });
}
void pairs_forward(const Context& ctx, const MatmulForward& op) {
  pairs::with_engine([&](auto engine) { forward_on<decltype(engine)>(ctx, op); });
}
void pairs_backward_input(const Context& ctx, const MatmulBackwardInput& op) {
  pairs::with_engine([&](auto engine) { backward_input_on<decltype(engine)>(ctx, op); });
}
void pairs_backward_weight(const Context& ctx, const MatmulBackwardWeight& op) {
  pairs::with_engine([&](auto engine) { backward_weight_on<decltype(engine)>(ctx, op); });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(pairs_pack);
HWY_EXPORT(pairs_forward);
HWY_EXPORT(pairs_backward_input);
HWY_EXPORT(pairs_backward_weight);

void pairs_pack_weight(const Context& ctx, const PackWeight& op) {
  HWY_DYNAMIC_DISPATCH(pairs_pack)(ctx, op.weight, static_cast<Bf16*>(op.memory));
}

void pairs_matmul_forward(const Context& ctx, const MatmulForward& op) {
  HWY_DYNAMIC_DISPATCH(pairs_forward)(ctx, op);
}

void pairs_matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op) {
  HWY_DYNAMIC_DISPATCH(pairs_backward_input)(ctx, op);
}

void pairs_matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op) {
  HWY_DYNAMIC_DISPATCH(pairs_backward_weight)(ctx, op);
}

}  // namespace orrery::kernels::cpu
#endif  // HWY_ONCE
