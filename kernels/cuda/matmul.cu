// Matrix products of linear layers. Which tile computes a product depends on its shape;
// its bits do not (matmul_tile.cuh, matmul_rows.cuh; with bf16 operands gemm_mma.cuh).
#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <limits>

#include "core/dtype.h"
#include "kernels/checks.h"
#include "kernels/cuda/gemm_mma_launch.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_rows.cuh"
#include "kernels/cuda/matmul_tile.cuh"

namespace orrery::kernels::cuda {
namespace {

// For large products, for those with too few large tiles for the device, and for a few
// rows.
using LargeTile = TileShape<128, 128, 16, 32, 64, 4, 2>;
using MediumTile = TileShape<64, 64, 16, 32, 32, 4, 4>;
using RowsTile = TileShape<16, 64, 32, 16, 16, 4, 4>;

/// What a tile's multiply-adds cost, those of a large tile being 1.
constexpr double kMediumCost = 1.4, kRowsCost = 2.8;

int64_t padded(int64_t k) { return ceil_div(k, 4) * 4; }

bool aligned(const void* data, size_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

Operand operand(const float* data, int64_t ld, int64_t size) {
  return {data, ld, size, ld % 4 == 0 && aligned(data, 16)};
}

template <class Shape>
int64_t tiles_of(const Product& product) {
  return ceil_div(product.m, Shape::kBm) * ceil_div(product.n, Shape::kBn);
}

/// About the time of the product by tiles of a shape.
template <class Shape>
double time_of(const Product& product, double cost) {
  return cost * Shape::kBm * Shape::kBn * ceil_div(tiles_of<Shape>(product), kMultiprocessors);
}

template <class Shape, OperandOrder kOrderA, OperandOrder kOrderB>
void launch(const Context& ctx, const Product& product, const Operand& a, const Operand& b) {
  matmul_kernel<Shape, kOrderA, kOrderB>
      <<<static_cast<unsigned>(tiles_of<Shape>(product)), Shape::kThreads, 0, stream_of(ctx)>>>(
          product, a, b);
}

template <OperandOrder kOrderA, OperandOrder kOrderB>
void multiply(const Context& ctx, const char* op, Product product, const Operand& a,
              const Operand& b) {
  if (product.m == 0 || product.n == 0) return;
  product.quads = product.ldc % 4 == 0 && aligned(product.c, 16);
  const double large = time_of<LargeTile>(product, 1.0);
  const double medium = time_of<MediumTile>(product, kMediumCost);
  const double rows = time_of<RowsTile>(product, kRowsCost);
  if (large <= medium && large <= rows) {
    launch<LargeTile, kOrderA, kOrderB>(ctx, product, a, b);
  } else if (medium <= rows) {
    launch<MediumTile, kOrderA, kOrderB>(ctx, product, a, b);
  } else {
    launch<RowsTile, kOrderA, kOrderB>(ctx, product, a, b);
  }
  check_launch(op);
}

Operand weight_operand(const PackedWeight& w, int64_t size) {
  return operand(static_cast<const float*>(w.data), padded(w.k), size);
}

// For decoding one sequence, and a few of them: the fewer columns a tile has, the more
// multiprocessors share a weight, and the more often x is read. Chosen by counting
// copies and steps of the chain; tests/gpu/ops/tune.cu times them beside others.
using OneRowTile = FewRowsTile<1, 8, 1, 1, 128, 6>;
using EightRowsTile = FewRowsTile<8, 8, 1, 2, 128, 4>;
using EightRowsWideTile = FewRowsTile<8, 32, 2, 4, 64, 4>;
using SixteenRowsTile = FewRowsTile<16, 32, 4, 2, 64, 3>;
constexpr int64_t kMostFewRows = 64;

template <class Tile>
void launch_few_rows(const Context& ctx, const Product& product, const Operand& x,
                     const Operand& weight) {
  constexpr size_t kBytes = Tile::kBytes;
  static_assert(kBytes <= 48 << 10);  // more would have to be asked for
  const dim3 tiles(static_cast<unsigned>(ceil_div(product.n, Tile::kBn)),
                   static_cast<unsigned>(ceil_div(product.m, Tile::kBm)));
  few_rows_kernel<Tile><<<tiles, Tile::kThreads, kBytes, stream_of(ctx)>>>(product, x, weight);
  check_launch("matmul_forward");
}

/// Launches the product by a tile for a few rows, or returns false where that is no
/// gain or an operand is not aligned for it.
bool multiply_few_rows(const Context& ctx, const Product& product, const Operand& x,
                       const Operand& weight) {
  const bool can_copy =
      x.quads && product.k % 4 == 0 && aligned(weight.data, 16) && weight.ld % 4 == 0;
  if (!can_copy || product.m == 0 || product.n == 0 || product.m > kMostFewRows) return false;
  if (product.m == 1) {
    launch_few_rows<OneRowTile>(ctx, product, x, weight);
  } else if (product.m <= EightRowsTile::kBm) {
    const bool wide = product.n >= 2 * kMultiprocessors * EightRowsWideTile::kBn;
    wide ? launch_few_rows<EightRowsWideTile>(ctx, product, x, weight)
         : launch_few_rows<EightRowsTile>(ctx, product, x, weight);
  } else {
    // Larger tiles do more with each read, where they are enough for half of the
    // device.
    if (tiles_of<MediumTile>(product) > kMultiprocessors / 2) return false;
    launch_few_rows<SixteenRowsTile>(ctx, product, x, weight);
  }
  return true;
}

/// A packed row's elements beyond the weight's are zeros.
struct PackElement {
  Mat<const float> from;
  float* to;
  int64_t row;  ///< elements of a packed row
  __device__ void operator()(int64_t i) const {
    const int64_t r = i / row, c = i % row;
    to[i] = c < from.cols ? from.data[r * from.stride + c] : 0.0f;
  }
};
struct PackBf16Element {
  Mat<const float> from;
  Bf16* to;
  int64_t row;
  __device__ void operator()(int64_t i) const {
    const int64_t r = i / row, c = i % row;
    to[i].bits = c < from.cols ? bf16_bits_half_away(from.data[r * from.stride + c]) : 0;
  }
};

}  // namespace

size_t packed_weight_bytes(const Context& /*ctx*/, const PackedWeightBytes& op) {
  if (op.dtype == DType::kBF16) {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / 64;
    if (op.k > kMost || op.n > kMost / std::max<int64_t>(gemm_padded(op.k), 1))
      fail("packed_weight_bytes: weight [{}, {}] is too large", op.n, op.k);
    return static_cast<size_t>(op.n * gemm_padded(op.k)) * sizeof(Bf16);
  }
  require_dtype("packed_weight_bytes", "the weight", op.dtype, DType::kF32);
  return static_cast<size_t>(op.n * padded(op.k)) * sizeof(float);
}

void pack_weight(const Context& ctx, const PackWeight& op) {
  if (op.dtype == DType::kBF16) {
    const int64_t row = gemm_padded(op.weight.cols);
    return for_each_element(ctx, "pack_weight", op.weight.rows * row,
                            PackBf16Element{op.weight, static_cast<Bf16*>(op.memory), row});
  }
  const int64_t row = padded(op.weight.cols);
  for_each_element(ctx, "pack_weight", op.weight.rows * row,
                   PackElement{op.weight, static_cast<float*>(op.memory), row});
}

void matmul_forward(const Context& ctx, const MatmulForward& op) {
  if (op.weight.dtype == DType::kBF16) return gemm_forward(ctx, op);
  const Mat<float> y = op.y.as<float>();
  const Mat<const float> x = op.x.as<const float>();
  const Product product{.m = y.rows,
                        .n = y.cols,
                        .k = x.cols,
                        .c = y.data,
                        .ldc = y.stride,
                        .bias = op.bias.empty() ? nullptr : op.bias.data,
                        .accumulate = op.accumulate};
  const Operand rows = operand(x.data, x.stride, x.rows);
  const Operand weight = weight_operand(op.weight, op.weight.n);
  if (!multiply_few_rows(ctx, product, rows, weight))
    multiply<OperandOrder::kInner, OperandOrder::kInner>(ctx, "matmul_forward", product, rows,
                                                         weight);
}

void matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op) {
  if (op.weight.dtype == DType::kBF16) return gemm_backward_input(ctx, op);
  const Mat<float> dx = op.dx.as<float>();
  const Mat<const float> dy = op.dy.as<const float>();
  const Product product{.m = dx.rows,
                        .n = dx.cols,
                        .k = dy.cols,
                        .c = dx.data,
                        .ldc = dx.stride,
                        .accumulate = op.accumulate};
  multiply<OperandOrder::kInner, OperandOrder::kOuter>(ctx, "matmul_backward_input", product,
                                                       operand(dy.data, dy.stride, dy.rows),
                                                       weight_operand(op.weight, op.weight.k));
}

void matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op) {
  if (op.x.dtype == DType::kBF16) return gemm_backward_weight(ctx, op);
  const Mat<const float> dy = op.dy.as<const float>(), x = op.x.as<const float>();
  const Product product{.m = op.dw.rows,
                        .n = op.dw.cols,
                        .k = dy.rows,
                        .c = op.dw.data,
                        .ldc = op.dw.stride,
                        .accumulate = op.accumulate};
  multiply<OperandOrder::kOuter, OperandOrder::kOuter>(ctx, "matmul_backward_weight", product,
                                                       operand(dy.data, dy.stride, dy.cols),
                                                       operand(x.data, x.stride, x.cols));
}

}  // namespace orrery::kernels::cuda
