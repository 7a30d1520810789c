#include "models/parameters.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/rng.h"

namespace orrery::models {
namespace {

constexpr int64_t kGroupAlign = 16;

int64_t product(const std::vector<int64_t>& shape) {
  int64_t size = 1;
  for (const int64_t d : shape) size *= d;
  return size;
}

}  // namespace

ParameterTable::ParameterTable(const ModelConfig& config, Module module)
    : module_(std::move(module)) {
  int64_t cursor = 0;
  const auto group = [&] {
    cursor = (cursor + kGroupAlign - 1) / kGroupAlign * kGroupAlign;
    return cursor;
  };
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    const int64_t size = product(shape);
    by_name_.emplace(name, parameters_.size());
    parameters_.push_back({std::move(name), std::move(shape), cursor, size, module_.trainable});
    cursor += size;
    parameter_count_ += size;
  };
  const int64_t d = config.hidden_size, f = config.intermediate_size;

  embedding_ = group();
  add("model.embed_tokens.weight", {config.vocab_size, d});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i);
    LayerOffsets at{};
    at.input_norm = group();
    add(prefix + "input_layernorm.weight", {d});
    at.qkv = group();
    add(prefix + "self_attn.q_proj.weight", {config.q_size(), d});
    add(prefix + "self_attn.k_proj.weight", {config.kv_size(), d});
    add(prefix + "self_attn.v_proj.weight", {config.kv_size(), d});
    at.qkv_bias = group();
    if (config.qkv_bias) {
      add(prefix + "self_attn.q_proj.bias", {config.q_size()});
      add(prefix + "self_attn.k_proj.bias", {config.kv_size()});
      add(prefix + "self_attn.v_proj.bias", {config.kv_size()});
    }
    at.q_norm = group();
    if (config.qk_norm) add(prefix + "self_attn.q_norm.weight", {config.head_dim});
    at.k_norm = group();
    if (config.qk_norm) add(prefix + "self_attn.k_norm.weight", {config.head_dim});
    at.o = group();
    add(prefix + "self_attn.o_proj.weight", {d, config.q_size()});
    at.post_norm = group();
    add(prefix + "post_attention_layernorm.weight", {d});
    at.gate_up = group();
    add(prefix + "mlp.gate_proj.weight", {f, d});
    add(prefix + "mlp.up_proj.weight", {f, d});
    at.down = group();
    add(prefix + "mlp.down_proj.weight", {d, f});
    layers_.push_back(at);
  }
  final_norm_ = group();
  add("model.norm.weight", {d});
  lm_head_ = embedding_;
  if (!config.tie_word_embeddings) {
    lm_head_ = group();
    add("lm_head.weight", {config.vocab_size, d});
  }
  flat_size_ = group();
}

std::vector<int64_t> ParameterTable::regions() const {
  std::vector<int64_t> bounds = {0};
  for (const LayerOffsets& at : layers_) bounds.push_back(at.input_norm);
  bounds.push_back(final_norm_);
  bounds.push_back(flat_size_);
  return bounds;
}

std::vector<HeldSlice> ParameterTable::slices(std::span<const Extent> stretches) const {
  std::vector<HeldSlice> slices;
  int64_t at = 0;
  for (const Extent& stretch : stretches) {
    // The first tensor that ends behind the stretch's begin.
    auto p = std::upper_bound(
        parameters_.begin(), parameters_.end(), stretch.begin,
        [](int64_t begin, const Parameter& q) { return begin < q.offset + q.size; });
    for (; p != parameters_.end() && p->offset < stretch.end; ++p) {
      const int64_t begin = std::max(p->offset, stretch.begin);
      const int64_t end = std::min(p->offset + p->size, stretch.end);
      slices.push_back({p - parameters_.begin(),
                        {begin - p->offset, end - p->offset},
                        at + (begin - stretch.begin)});
    }
    at += stretch.size();
  }
  return slices;
}

std::vector<HeldSlice> ParameterTable::slices() const {
  const Extent all{0, flat_size_};
  return slices(std::span(&all, 1));
}

const Parameter* ParameterTable::find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &parameters_[it->second];
}

void initialize_parameters(const ModelConfig& config, const ParameterTable& table, uint64_t seed,
                           Span<float> flat) {
  ORRERY_CHECK(flat.size() == table.flat_size(), "flat buffer of {} elements", flat.size());
  std::fill(flat.begin(), flat.end(), 0.0f);
  const double residual_scale = 1.0 / std::sqrt(2.0 * config.num_hidden_layers);
  uint64_t stream = 0;
  for (const Parameter& p : table.parameters()) {
    const Span<float> values = flat.subspan(p.offset, p.size);
    const bool matrix = p.shape.size() == 2;
    if (matrix) {
      const bool into_residual =
          p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
      const float std =
          static_cast<float>(config.initializer_range * (into_residual ? residual_scale : 1.0));
      Philox generator(seed, RngPurpose::kInit, stream);
      for (float& value : values) value = std * generator.normal();
    } else if (p.name.ends_with("norm.weight")) {
      std::fill(values.begin(), values.end(), 1.0f);
    }
    ++stream;
  }
}

}  // namespace orrery::models
