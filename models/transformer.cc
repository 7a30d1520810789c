#include "models/transformer.h"

#include <algorithm>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/numerics.h"

namespace orrery::models {
namespace {

/// The config of a model that runs sequences of at most `max_positions` (0: any that
/// the config allows).
ModelConfig limited(ModelConfig config, int64_t max_positions) {
  if (max_positions > 0)
    config.max_position_embeddings = std::min(config.max_position_embeddings, max_positions);
  return config;
}

DType computed_type(Device device, DType compute_dtype) {
  kernels::require_numerics(device, compute_dtype);
  return compute_dtype;
}

constexpr Buffer::Purpose kWeights{
    "the weights of a model",
    "use a smaller model, no second one (a KL loss's reference), fewer ranks on the device, or a "
    "larger device"};

}  // namespace

Transformer::Transformer(const ModelConfig& config, Device device, DType compute_dtype,
                         int64_t max_positions, const Module& module)
    : config_(limited(config, max_positions)),
      table_(config_, module),
      compute_dtype_(computed_type(device, compute_dtype)),
      parameters_(Buffer::zeroed(device, table_.flat_size() * sizeof(float), kWeights)),
      rope_(kernels::build_rope_table(device, config_.rope, config_.max_position_embeddings)),
      lm_head_(table_.lm_head(), {}, parameters(), compute_dtype) {
  size_t bytes = lm_head_.packed_bytes(device);
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    bytes += blocks_.emplace_back(config_, table_.layer(i), parameters(), compute_dtype, rope_)
                 .packed_bytes(device);
  }
  packed_ = Buffer(device, bytes, kWeights);
}

void Transformer::pack(const Context& ctx) {
  const ProfilePhaseScope phase(ctx, "pack");
  std::byte* memory = packed_.vec<std::byte>().data;
  for (Block& block : blocks_) {
    block.pack(ctx, memory);
    memory += block.packed_bytes(ctx.device);
  }
  lm_head_.pack(ctx, memory);
  stale_ = false;
}

ForwardFlops forward_flops(const ModelConfig& config,
                           Span<const kernels::AttentionSegment> segments, int64_t output_rows) {
  const double layers = config.num_hidden_layers;
  const double weights = config.hidden_size * (config.qkv_size() + config.q_size()) +
                         3 * config.hidden_size * config.intermediate_size;
  ForwardFlops flops;
  for (const kernels::AttentionSegment& s : segments) {
    const double rows = s.rows;
    const double pairs = rows * s.position + rows * (rows + 1) / 2;
    flops.matmul += 2.0 * rows * weights * layers;
    flops.attention_causal += 4.0 * pairs * config.q_size() * layers;
  }
  flops.head = 2.0 * (output_rows * config.vocab_size * config.hidden_size);
  return flops;
}

}  // namespace orrery::models
