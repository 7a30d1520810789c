#include "kernels/matmul.h"

#include <cstdint>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/bias.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cuda/bias.h"
#include "kernels/cuda/matmul.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {
namespace {

template <class Matrix>
void check_mat(const char* op, const char* name, const Matrix& mat, int64_t rows, int64_t cols) {
  ORRERY_CHECK(mat.rows == rows && mat.cols == cols, "{}: {} is [{}, {}], expected [{}, {}]", op,
               name, mat.rows, mat.cols, rows, cols);
  ORRERY_CHECK(rows >= 0 && cols >= 0 && mat.stride >= cols, "{}: {} is [{}, {}] with stride {}",
               op, name, rows, cols, mat.stride);
  ORRERY_CHECK(mat.data != nullptr || rows == 0 || cols == 0, "{}: {} [{}, {}] has no memory", op,
               name, rows, cols);
}

void check_weight(const char* op, const PackedWeight& w) {
  ORRERY_CHECK(w.dtype == DType::kF32 || w.dtype == DType::kBF16,
               "{}: weight of dtype {}, expected f32 or bf16", op, dtype_name(w.dtype));
  ORRERY_CHECK(w.n >= 0 && w.k >= 0 && (w.data != nullptr || w.n == 0 || w.k == 0),
               "{}: weight [{}, {}] is not packed", op, w.n, w.k);
}

/// Both operands are of one type.
void check_operand(const char* op, const char* name, const ConstActMat& mat, const char* other,
                   DType dtype) {
  ORRERY_CHECK(mat.dtype == dtype, "{}: {} is {}, {} {}: both must be f32 or both bf16", op, name,
               dtype_name(mat.dtype), other, dtype_name(dtype));
}

/// A result is f32, or bf16 where the operands are and it is not accumulated.
void check_result(const char* op, const char* name, const ActMat& mat, DType operands,
                  bool accumulate) {
  if (mat.dtype == DType::kF32) return;
  ORRERY_CHECK(mat.dtype == DType::kBF16 && operands == DType::kBF16,
               "{}: {} is {} with operands of {}, expected f32", op, name, dtype_name(mat.dtype),
               dtype_name(operands));
  ORRERY_CHECK(!accumulate, "{}: {} is bf16, which cannot accumulate", op, name);
}

double product_flops(int64_t m, int64_t n, int64_t k) { return 2.0 * m * n * k; }

double weight_bytes(const PackedWeight& w) { return 1.0 * w.n * w.k * dtype_bytes(w.dtype); }

constexpr size_t kPackAlign = 64;

}  // namespace

size_t packed_weight_bytes(Device device, DType dtype, int64_t n, int64_t k) {
  ORRERY_CHECK(n >= 0 && k >= 0, "packed_weight_bytes: weight [{}, {}]", n, k);
  const auto bytes = dispatch<cpu::packed_weight_bytes, cuda::packed_weight_bytes>(
      Context{.device = device}, "packed_weight_bytes", PackedWeightBytes{dtype, n, k});
  return (bytes + kPackAlign - 1) / kPackAlign * kPackAlign;
}

PackedWeight pack_weight(const Context& ctx, const PackWeight& op) {
  check_mat("pack_weight", "w", op.weight, op.weight.rows, op.weight.cols);
  const PackedWeight packed{op.dtype, op.weight.rows, op.weight.cols, op.memory};
  check_weight("pack_weight", packed);
  ORRERY_CHECK(reinterpret_cast<uintptr_t>(op.memory) % kPackAlign == 0,
               "pack_weight: memory is not {}-byte aligned", kPackAlign);
  const ProfileOpScope profile(ctx, "pack weights", 0,
                               f32_bytes(op.weight.size()) + weight_bytes(packed));
  dispatch<cpu::pack_weight, cuda::pack_weight>(ctx, "pack_weight", op);
  return packed;
}

void matmul_forward(const Context& ctx, const MatmulForward& op) {
  const PackedWeight& w = op.weight;
  check_weight("matmul_forward", w);
  check_mat("matmul_forward", "x", op.x, op.x.rows, w.k);
  check_mat("matmul_forward", "y", op.y, op.x.rows, w.n);
  check_operand("matmul_forward", "x", op.x, "the weight", w.dtype);
  check_result("matmul_forward", "y", op.y, w.dtype, op.accumulate);
  ORRERY_CHECK(op.bias.empty() || op.bias.size == w.n, "matmul_forward: bias of {}, expected {}",
               op.bias.size, w.n);
  ORRERY_CHECK(op.bias.empty() || !op.accumulate,
               "matmul_forward: a bias cannot be given when accumulating");
  if (op.y.size() == 0) return;
  const ProfileOpScope profile(
      ctx, "matmul forward", product_flops(op.y.rows, w.n, w.k),
      mat_bytes(op.x) + mat_bytes(op.y) * (op.accumulate ? 2 : 1) + weight_bytes(w));
  dispatch<cpu::matmul_forward, cuda::matmul_forward>(ctx, "matmul_forward", op);
}

void matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op) {
  const PackedWeight& w = op.weight;
  check_weight("matmul_backward_input", w);
  check_mat("matmul_backward_input", "dy", op.dy, op.dy.rows, w.n);
  check_mat("matmul_backward_input", "dx", op.dx, op.dy.rows, w.k);
  check_operand("matmul_backward_input", "dy", op.dy, "the weight", w.dtype);
  check_result("matmul_backward_input", "dx", op.dx, w.dtype, op.accumulate);
  if (op.dx.size() == 0) return;
  const ProfileOpScope profile(
      ctx, "matmul dX", product_flops(op.dy.rows, w.n, w.k),
      mat_bytes(op.dy) + mat_bytes(op.dx) * (op.accumulate ? 2 : 1) + weight_bytes(w));
  dispatch<cpu::matmul_backward_input, cuda::matmul_backward_input>(ctx, "matmul_backward_input",
                                                                    op);
}

void matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op) {
  check_mat("matmul_backward_weight", "dy", op.dy, op.dy.rows, op.dy.cols);
  check_mat("matmul_backward_weight", "x", op.x, op.dy.rows, op.x.cols);
  check_mat("matmul_backward_weight", "dw", op.dw, op.dy.cols, op.x.cols);
  ORRERY_CHECK(op.x.dtype == DType::kF32 || op.x.dtype == DType::kBF16,
               "matmul_backward_weight: x is {}, expected f32 or bf16", dtype_name(op.x.dtype));
  check_operand("matmul_backward_weight", "dy", op.dy, "x", op.x.dtype);
  if (op.x.dtype == DType::kBF16) require_runs("matmul_backward_weight", op.run_ends, op.dy.rows);
  if (op.dw.size() == 0) return;
  const ProfileOpScope profile(
      ctx, "matmul dW", product_flops(op.dy.rows, op.dy.cols, op.x.cols),
      mat_bytes(op.dy) + mat_bytes(op.x) + f32_bytes(op.dw.size()) * (op.accumulate ? 2 : 1));
  dispatch<cpu::matmul_backward_weight, cuda::matmul_backward_weight>(ctx, "matmul_backward_weight",
                                                                      op);
}

void bias_backward(const Context& ctx, const BiasBackward& op) {
  check_mat("bias_backward", "dy", op.dy, op.dy.rows, op.db.size);
  require_runs("bias_backward", op.run_ends, op.dy.rows);
  const ProfileOpScope profile(ctx, "bias backward", 0, mat_bytes(op.dy));
  dispatch<cpu::bias_backward, cuda::bias_backward>(ctx, "bias_backward", op);
}

}  // namespace orrery::kernels
