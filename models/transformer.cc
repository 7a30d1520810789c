#include "models/transformer.h"

#include <algorithm>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/elementwise.h"

namespace orrery::models {
namespace {

constexpr size_t kPackAlign = 64;

size_t aligned(size_t bytes) { return (bytes + kPackAlign - 1) / kPackAlign * kPackAlign; }

/// The config of a model that runs sequences of at most `max_positions` (0: any that
/// the config allows).
ModelConfig limited(ModelConfig config, int64_t max_positions) {
  if (max_positions > 0)
    config.max_position_embeddings = std::min(config.max_position_embeddings, max_positions);
  return config;
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, Device device, DType compute_dtype,
                         int64_t max_positions, const Module& module)
    : config_(limited(config, max_positions)),
      table_(config_, module),
      compute_dtype_(compute_dtype),
      parameters_(Buffer::zeroed(device, table_.flat_size() * sizeof(float))) {
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  size_t bytes = aligned(kernels::packed_weight_bytes(device, compute_dtype, config.vocab_size, d));
  bytes += config.num_hidden_layers *
           (aligned(kernels::packed_weight_bytes(device, compute_dtype, config.qkv_size(), d)) +
            aligned(kernels::packed_weight_bytes(device, compute_dtype, d, config.q_size())) +
            aligned(kernels::packed_weight_bytes(device, compute_dtype, 2 * f, d)) +
            aligned(kernels::packed_weight_bytes(device, compute_dtype, d, f)));
  packed_ = Buffer(device, bytes);
  layers_.resize(config.num_hidden_layers);
  rope_ = kernels::build_rope_table(device, config_.rope, config_.max_position_embeddings);
}

void Transformer::pack(const Context& ctx) {
  const ProfilePhaseScope phase(ctx, "pack");
  const int64_t d = config_.hidden_size, f = config_.intermediate_size;
  float* flat = parameters_.vec<float>().data;
  std::byte* memory = static_cast<std::byte*>(packed_.data());
  const auto pack_one = [&](int64_t offset, int64_t n, int64_t k) {
    const kernels::PackedWeight packed =
        kernels::pack_weight(ctx, {.weight = Mat<const float>(flat + offset, n, k),
                                   .dtype = compute_dtype_,
                                   .memory = memory});
    memory += aligned(kernels::packed_weight_bytes(ctx.device, compute_dtype_, n, k));
    return packed;
  };
  const auto vector = [&](int64_t offset, int64_t size) {
    return Vec<const float>(flat + offset, size);
  };
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const LayerOffsets& at = table_.layer(i);
    Layer& layer = layers_[i];
    layer.input_norm = vector(at.input_norm, d);
    layer.post_norm = vector(at.post_norm, d);
    if (config_.qkv_bias) layer.qkv_bias = vector(at.qkv_bias, config_.qkv_size());
    if (config_.qk_norm) {
      layer.q_norm = vector(at.q_norm, config_.head_dim);
      layer.k_norm = vector(at.k_norm, config_.head_dim);
    }
    layer.qkv = pack_one(at.qkv, config_.qkv_size(), d);
    layer.o = pack_one(at.o, d, config_.q_size());
    layer.gate_up = pack_one(at.gate_up, 2 * f, d);
    layer.down = pack_one(at.down, d, f);
  }
  lm_head_ = pack_one(table_.lm_head(), config_.vocab_size, d);
  stale_ = false;
}

Mat<const float> Transformer::embedding() const {
  return {parameters().data + table_.embedding(), config_.vocab_size, config_.hidden_size};
}

Vec<const float> Transformer::final_norm() const {
  return parameters().part(table_.final_norm(), config_.hidden_size);
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
