#include "models/kv_cache.h"

#include "core/error.h"

namespace orrery::models {
namespace {

size_t pool_bytes(const ModelConfig& config, DType dtype, Device device, int64_t blocks) {
  return kernels::kv_pool_bytes(device, dtype, blocks, config.num_key_value_heads, config.head_dim);
}

}  // namespace

KvCache::KvCache(const ModelConfig& config, DType dtype, Device device, int64_t blocks,
                 Vec<float> memory)
    : blocks_(blocks) {
  const size_t layer_bytes = pool_bytes(config, dtype, device, blocks);
  const size_t bytes = layer_bytes * config.num_hidden_layers;
  const bool lent = !memory.empty() && memory.size * sizeof(float) >= bytes;
  if (!lent) {
    try {
      own_ = Buffer::zeroed(device, bytes);
    } catch (const Error&) {
      fail(
          "out of memory: cannot allocate the KV cache of {:.1f} MiB ({} blocks) on {}; "
          "lower rollout.kv_cache_gb, or rollout.max_num_seqs",
          static_cast<double>(bytes) * 0x1p-20, blocks, device_name(device));
    }
  }
  auto* at = static_cast<std::byte*>(lent ? memory.data : own_.data());
  for (int64_t i = 0; i < config.num_hidden_layers; ++i, at += layer_bytes) {
    layers_.push_back(kernels::make_kv_pool(device, dtype, blocks, config.num_key_value_heads,
                                            config.head_dim, at));
  }
}

void KvCache::clear_lent(const Context& ctx) const {
  if (own_.bytes() > 0) return;
  for (const kernels::KvPool& pool : layers_) kernels::kv_clear(ctx, {.pool = pool});
}

void KvCache::copy_blocks(const Context& ctx, Span<const kernels::BlockCopy> copies,
                          Arena& arena) const {
  if (copies.empty()) return;
  const ArenaScope scope(arena);
  const kernels::CopyPlan plan = kernels::make_copy_plan(ctx, blocks_, copies, arena);
  for (const kernels::KvPool& pool : layers_)
    kernels::kv_copy(ctx, {.pool = pool, .plan = plan, .clear_rest = true});
}

size_t KvCache::bytes_per_block(const ModelConfig& config, DType dtype, Device device) {
  return pool_bytes(config, dtype, device, 1) * config.num_hidden_layers;
}

}  // namespace orrery::models
