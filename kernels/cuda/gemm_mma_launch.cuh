// The products of a linear layer with bf16 operands: what gemm_kernel takes for each of
// them, and which tile a shape gets. Bits do not depend on that.
#pragma once

#include "kernels/cuda/gemm_mma.cuh"
#include "kernels/matmul.h"

namespace orrery::kernels::cuda {

// For large products, for those with too few large tiles for the device (and where an
// operand is not aligned), and for tokens that are being decoded: a few rows, bound by
// the reads of the weight, of which a tile has fewer columns where there are few.
using LargeGemm = GemmTile<128, 128, 32, 64, 64, 4, 2>;
using MediumGemm = GemmTile<64, 64, 64, 32, 32, 3, 4>;
using RowsGemm = GemmTile<16, 64, 128, 16, 16, 4, 2>;
using NarrowRowsGemm = GemmTile<16, 16, 128, 16, 8, 8, 2>;

/// What a tile's products cost, those of a large tile being 1.
inline constexpr double kMediumGemmCost = 1.3, kRowsGemmCost = 3.0;

/// Elements of a packed row: rows are aligned to 16 bytes.
inline int64_t gemm_padded(int64_t k) { return ceil_div(k, kGemmCopy) * kGemmCopy; }

inline bool gemm_aligned(const GemmOperand& operand) {
  return operand.ld % kGemmCopy == 0 &&
         reinterpret_cast<uintptr_t>(operand.data) % (kGemmCopy * sizeof(Bf16)) == 0;
}

template <class Tile>
int64_t gemm_tiles(const GemmProduct& product) {
  return ceil_div(product.m, Tile::kBm) * ceil_div(product.n, Tile::kBn);
}

/// About the time of the product by a tile.
template <class Tile>
double gemm_time(const GemmProduct& product, double cost) {
  return cost * Tile::kBm * Tile::kBn * ceil_div(gemm_tiles<Tile>(product), kMultiprocessors);
}

template <class Tile, OperandOrder kOrderA, OperandOrder kOrderB, bool kAligned, class Inner>
void launch_gemm(const Context& ctx, const char* op, const GemmProduct& product,
                 const GemmOperand& a, const GemmOperand& b, const Inner& inner) {
  constexpr size_t kBytes = size_t{Tile::kStages} * sizeof(Bf16) *
                            (GemmSlices<Tile, kOrderA, Tile::kBm, kAligned>::kElements +
                             GemmSlices<Tile, kOrderB, Tile::kBn, kAligned>::kElements);
  static_assert(kBytes <= 99 << 10);  // what a block of 8.6 has
  check_call(op, cudaFuncSetAttribute(gemm_kernel<Tile, kOrderA, kOrderB, kAligned, Inner>,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(kBytes)));
  gemm_kernel<Tile, kOrderA, kOrderB, kAligned, Inner>
      <<<static_cast<unsigned>(gemm_tiles<Tile>(product)), Tile::kThreads, kBytes,
         stream_of(ctx)>>>(product, a, b, inner);
  check_launch(op);
}

/// C must not be empty.
template <OperandOrder kOrderA, OperandOrder kOrderB, class Inner>
void multiply_gemm(const Context& ctx, const char* op, GemmProduct product, const GemmOperand& a,
                   const GemmOperand& b, const Inner& inner) {
  const size_t pair = 2 * (product.to_bf16 ? sizeof(Bf16) : sizeof(float));
  product.pairs = product.ldc % 2 == 0 && reinterpret_cast<uintptr_t>(product.c) % pair == 0;
  if (!gemm_aligned(a) || !gemm_aligned(b))
    return launch_gemm<MediumGemm, kOrderA, kOrderB, false>(ctx, op, product, a, b, inner);
  const double large = gemm_time<LargeGemm>(product, 1.0);
  const double medium = gemm_time<MediumGemm>(product, kMediumGemmCost);
  if constexpr (kOrderA == OperandOrder::kInner && kOrderB == OperandOrder::kInner) {
    const double rows = gemm_time<RowsGemm>(product, kRowsGemmCost);
    if (product.m <= NarrowRowsGemm::kBm && gemm_tiles<RowsGemm>(product) < kMultiprocessors)
      return launch_gemm<NarrowRowsGemm, kOrderA, kOrderB, true>(ctx, op, product, a, b, inner);
    if (rows < large && rows < medium)
      return launch_gemm<RowsGemm, kOrderA, kOrderB, true>(ctx, op, product, a, b, inner);
  }
  large <= medium ? launch_gemm<LargeGemm, kOrderA, kOrderB, true>(ctx, op, product, a, b, inner)
                  : launch_gemm<MediumGemm, kOrderA, kOrderB, true>(ctx, op, product, a, b, inner);
}

inline OneRun one_run(int64_t k) {
  return {static_cast<int>(k), static_cast<int>(ceil_div(k, kGemmGroup))};
}

inline GemmOperand gemm_operand(const ConstActMat& mat, int64_t size) {
  const auto elements = mat.as<const Bf16>();
  return {elements.data, elements.stride, size};
}
inline GemmOperand gemm_operand(const PackedWeight& weight, int64_t size) {
  return {static_cast<const Bf16*>(weight.data), gemm_padded(weight.k), size};
}

inline void gemm_forward(const Context& ctx, const MatmulForward& op) {
  const GemmProduct product{.m = op.y.rows,
                            .n = op.y.cols,
                            .c = op.y.data,
                            .ldc = op.y.stride,
                            .bias = op.bias.empty() ? nullptr : op.bias.data,
                            .accumulate = op.accumulate,
                            .to_bf16 = op.y.dtype == DType::kBF16};
  if (product.m == 0 || product.n == 0) return;
  multiply_gemm<OperandOrder::kInner, OperandOrder::kInner>(
      ctx, "matmul_forward", product, gemm_operand(op.x, op.x.rows),
      gemm_operand(op.weight, op.weight.n), one_run(op.x.cols));
}

inline void gemm_backward_input(const Context& ctx, const MatmulBackwardInput& op) {
  const GemmProduct product{.m = op.dx.rows,
                            .n = op.dx.cols,
                            .c = op.dx.data,
                            .ldc = op.dx.stride,
                            .accumulate = op.accumulate,
                            .to_bf16 = op.dx.dtype == DType::kBF16};
  if (product.m == 0 || product.n == 0) return;
  multiply_gemm<OperandOrder::kInner, OperandOrder::kOuter>(
      ctx, "matmul_backward_input", product, gemm_operand(op.dy, op.dy.rows),
      gemm_operand(op.weight, op.weight.k), one_run(op.dy.cols));
}

/// A launch takes as many runs as its arguments hold; the next one goes on from C.
inline void gemm_backward_weight(const Context& ctx, const MatmulBackwardWeight& op) {
  GemmProduct product{.m = op.dw.rows,
                      .n = op.dw.cols,
                      .c = op.dw.data,
                      .ldc = op.dw.stride,
                      .accumulate = op.accumulate};
  if (product.m == 0 || product.n == 0) return;
  const int64_t rows = op.dy.rows;
  if (rows == 0 && op.accumulate) return;
  GemmOperand a = gemm_operand(op.dy, op.dy.cols), b = gemm_operand(op.x, op.x.cols);
  RunRows runs;
  int64_t first = 0, begin = 0;  // rows: of this launch, of the next run
  const auto launch = [&] {
    multiply_gemm<OperandOrder::kOuter, OperandOrder::kOuter>(ctx, "matmul_backward_weight",
                                                              product, a, b, runs);
    a.data += (begin - first) * a.ld;
    b.data += (begin - first) * b.ld;
    first = begin;
    runs.groups = runs.count = 0;
    product.accumulate = true;
  };
  const auto add = [&](int64_t end) {
    if (end == begin) return;
    if (runs.count == RunRows::kMost) launch();
    runs.groups += static_cast<int>(ceil_div(end - begin, kGemmGroup));
    runs.ends[runs.count++] = static_cast<int>(end - first);
    begin = end;
  };
  for (const int64_t end : op.run_ends) add(end);
  add(rows);
  launch();
}

}  // namespace orrery::kernels::cuda
