#include "kernels/kv_pool.h"

#include "core/error.h"
#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/kv_pool.h"
#include "kernels/cuda/kv_pool.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {
namespace {

/// Bytes that `count` keys' and values' elements take.
double element_bytes(const KvPool& pool, int64_t count) {
  return static_cast<double>(count) * static_cast<double>(dtype_bytes(pool.dtype));
}

}  // namespace

void check_pool(const char* op, const KvPool& pool, const AttentionPlan& plan) {
  if (pool.blocks != plan.pool_blocks || pool.kv_heads != plan.shape.kv_heads ||
      pool.head_dim != plan.shape.head_dim) {
    fail("{}: pool of {} blocks, {} kv heads of {}; the plan is for {} blocks, {} kv heads of {}",
         op, pool.blocks, pool.kv_heads, pool.head_dim, plan.pool_blocks, plan.shape.kv_heads,
         plan.shape.head_dim);
  }
}

size_t kv_pool_bytes(Device device, DType dtype, int64_t blocks, int64_t kv_heads,
                     int64_t head_dim) {
  const bool computed = dtype == DType::kF32 || dtype == DType::kBF16;
  if ((device.type == DeviceType::kCuda && !kCudaBuilt) || !computed) {
    fail(
        "KV pool: this build has no kernels for {} keys and values on device {}: use f32 or bf16{}",
        dtype_name(dtype), device_name(device), computed ? " on cpu" : "");
  }
  if (blocks < 0 || kv_heads < 1 || head_dim < 1 || head_dim > cpu::kMaxHeadDim) {
    fail(
        "KV pool of {} blocks, {} kv heads, head_dim {}: "
        "need at least 1 kv head and a head_dim of 1 to {}",
        blocks, kv_heads, head_dim, cpu::kMaxHeadDim);
  }
  return dispatch<cpu::kv_pool_bytes, cuda::kv_pool_bytes>(
      Context{.device = device}, "kv_pool_bytes", KvPoolBytes{dtype, blocks, kv_heads, head_dim});
}

KvPool make_kv_pool(Device device, DType dtype, int64_t blocks, int64_t kv_heads, int64_t head_dim,
                    void* memory) {
  if (kv_pool_bytes(device, dtype, blocks, kv_heads, head_dim) > 0 && memory == nullptr)
    fail("KV pool of {} blocks without memory", blocks);
  return {memory, dtype, blocks, kv_heads, head_dim};
}

void kv_clear(const Context& ctx, const KvClear& op) {
  const KvPool& pool = op.pool;
  const ProfileOpScope profile(
      ctx, "kv clear", 0,
      element_bytes(pool, 2 * kKvBlock * pool.blocks * pool.kv_heads * pool.head_dim));
  dispatch<cpu::kv_clear, cuda::kv_clear>(ctx, "kv_clear", op);
}

void kv_write(const Context& ctx, const KvWrite& op) {
  constexpr const char* kOp = "kv_write";
  const int64_t columns = op.plan.shape.kv_heads * op.plan.shape.head_dim;
  check_pool(kOp, op.pool, op.plan);
  require_mat(kOp, "k", op.k, op.plan.rows, columns);
  require_mat(kOp, "v", op.v, op.plan.rows, columns);
  const ProfileOpScope profile(ctx, "kv write", 0,
                               element_bytes(op.pool, 2 * (op.k.size() + op.v.size())));
  dispatch<cpu::kv_write, cuda::kv_write>(ctx, kOp, op);
}

void rope_kv_write(const Context& ctx, const RopeKvWrite& op) {
  constexpr const char* kOp = "rope_kv_write";
  const AttentionShape& shape = op.plan.shape;
  check_pool(kOp, op.pool, op.plan);
  require_mat(kOp, "qkv", op.qkv, op.plan.rows,
              (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
  require_dtype(kOp, "qkv", op.qkv.dtype, op.pool.dtype);
  check_rotation(kOp, op.rotation, op.plan.rows, shape.head_dim);
  // Values are not written back, but to the pool, and keys to both.
  const int64_t moved = 2 * op.qkv.size() + op.plan.rows * shape.kv_heads * shape.head_dim;
  const ProfileOpScope profile(ctx, "rope and kv write", 0, element_bytes(op.pool, moved));
  dispatch<cpu::rope_kv_write, cuda::rope_kv_write>(ctx, kOp, op);
}

void kv_copy(const Context& ctx, const KvCopy& op) {
  if (op.plan.copies.empty()) return;
  const ProfileOpScope profile(
      ctx, "kv copy", 0,
      element_bytes(op.pool, 4 * op.plan.slots * op.pool.kv_heads * op.pool.head_dim));
  dispatch<cpu::kv_copy, cuda::kv_copy>(ctx, "kv_copy", op);
}

}  // namespace orrery::kernels
