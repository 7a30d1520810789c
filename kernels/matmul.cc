#include "kernels/matmul.h"

#include <cstdint>
#include <limits>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/cpu/matmul.h"

namespace orrery::kernels {
namespace {

template <class T>
void check_mat(const char* op, const char* name, Mat<T> mat, int64_t rows, int64_t cols) {
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

void check_cpu(const char* op, const Context& ctx) {
  ORRERY_CHECK(ctx.device.type == DeviceType::kCpu, "{}: no implementation for this device", op);
}

double product_flops(int64_t m, int64_t n, int64_t k) { return 2.0 * m * n * k; }

double weight_bytes(const PackedWeight& w) { return 1.0 * w.n * w.k * dtype_bytes(w.dtype); }

}  // namespace

size_t packed_weight_bytes(DType dtype, int64_t n, int64_t k) {
  ORRERY_CHECK(n >= 0 && k >= 0, "packed_weight_bytes: weight [{}, {}]", n, k);
  const int64_t panels = n / kPanelWidth + (n % kPanelWidth != 0);
  const int64_t panel_bytes = kPanelWidth * dtype_bytes(dtype);
  ORRERY_CHECK(k == 0 || panels <= std::numeric_limits<int64_t>::max() / panel_bytes / k,
               "packed_weight_bytes: weight [{}, {}] is too large", n, k);
  return panels * k * panel_bytes;
}

PackedWeight pack_weight(const Context& ctx, Mat<const float> w, DType dtype, void* memory) {
  check_cpu("pack_weight", ctx);
  check_mat("pack_weight", "w", w, w.rows, w.cols);
  const PackedWeight packed{dtype, w.rows, w.cols, memory};
  check_weight("pack_weight", packed);
  ORRERY_CHECK(reinterpret_cast<uintptr_t>(memory) % 64 == 0,
               "pack_weight: memory is not 64-byte aligned");
  const ProfileOpScope profile(ctx, "pack weights", 0, f32_bytes(w.size()) + weight_bytes(packed));
  pack_weight_cpu(ctx, w, dtype, memory);
  return packed;
}

void matmul_forward(const Context& ctx, Mat<float> y, Mat<const float> x, const PackedWeight& w,
                    Span<const float> bias, bool accumulate) {
  check_cpu("matmul_forward", ctx);
  check_weight("matmul_forward", w);
  check_mat("matmul_forward", "x", x, x.rows, w.k);
  check_mat("matmul_forward", "y", y, x.rows, w.n);
  ORRERY_CHECK(bias.empty() || bias.size() == w.n, "matmul_forward: bias of {}, expected {}",
               bias.size(), w.n);
  ORRERY_CHECK(bias.empty() || !accumulate,
               "matmul_forward: a bias cannot be given when accumulating");
  if (y.size() == 0) return;
  const ProfileOpScope profile(
      ctx, "matmul forward", product_flops(y.rows, w.n, w.k),
      f32_bytes(x.size() + y.size() * (accumulate ? 2 : 1)) + weight_bytes(w));
  matmul_forward_cpu(ctx, y, x, w, bias, accumulate);
}

void matmul_backward_input(const Context& ctx, Mat<float> dx, Mat<const float> dy,
                           const PackedWeight& w, bool accumulate, Arena& arena) {
  check_cpu("matmul_backward_input", ctx);
  check_weight("matmul_backward_input", w);
  check_mat("matmul_backward_input", "dy", dy, dy.rows, w.n);
  check_mat("matmul_backward_input", "dx", dx, dy.rows, w.k);
  if (dx.size() == 0) return;
  const ArenaScope scope(arena);
  const ProfileOpScope profile(
      ctx, "matmul dX", product_flops(dy.rows, w.n, w.k),
      f32_bytes(dy.size() + dx.size() * (accumulate ? 2 : 1)) + weight_bytes(w));
  matmul_backward_input_cpu(ctx, dx, dy, w, accumulate, arena);
}

void matmul_backward_weight(const Context& ctx, Mat<float> dw, Mat<const float> dy,
                            Mat<const float> x, Arena& arena) {
  check_cpu("matmul_backward_weight", ctx);
  check_mat("matmul_backward_weight", "dy", dy, dy.rows, dy.cols);
  check_mat("matmul_backward_weight", "x", x, dy.rows, x.cols);
  check_mat("matmul_backward_weight", "dw", dw, dy.cols, x.cols);
  if (dw.size() == 0) return;
  const ArenaScope scope(arena);
  const ProfileOpScope profile(ctx, "matmul dW", product_flops(dy.rows, dy.cols, x.cols),
                               f32_bytes(dy.size() + x.size() + 2 * dw.size()));
  matmul_backward_weight_cpu(ctx, dw, dy, x, arena);
}

void bias_backward(const Context& ctx, Span<float> db, Mat<const float> dy) {
  check_cpu("bias_backward", ctx);
  check_mat("bias_backward", "dy", dy, dy.rows, db.size());
  const ProfileOpScope profile(ctx, "bias backward", 0, f32_bytes(dy.size()));
  bias_backward_cpu(ctx, db, dy);
}

}  // namespace orrery::kernels
