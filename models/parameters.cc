#include "models/parameters.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/rng.h"

namespace orrery::models {
namespace {

constexpr int64_t kGroupAlign = 16;

/// Of a group of vectors.
constexpr std::nullopt_t kVector = std::nullopt;

int64_t aligned(int64_t elements) {
  return (elements + kGroupAlign - 1) / kGroupAlign * kGroupAlign;
}

}  // namespace

ParameterTable::ParameterTable(const ModelConfig& config, Module module)
    : module_(std::move(module)) {
  const int64_t d = config.hidden_size, vocab = config.vocab_size;
  embedding_ = add_group(d, {{"model.embed_tokens.weight", vocab}});
  regions_ = {0};
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(add_layer(config, fmt::format("model.layers.{}.", i)));
    regions_.push_back(layers_.back().input_norm.offset_);
  }
  final_norm_ = add_group(kVector, {{"model.norm.weight", d}});
  regions_.push_back(final_norm_.offset_);
  lm_head_ = config.tie_word_embeddings ? embedding_ : add_group(d, {{"lm_head.weight", vocab}});
  flat_size_ = aligned(flat_size_);
  regions_.push_back(flat_size_);
  find_gaps();
}

void ParameterTable::find_gaps() {
  gaps_.resize(std::ssize(regions_) - 1);
  int64_t region = 0;
  for (auto p = parameters_.begin(); p != parameters_.end(); ++p) {
    const Extent gap{p->offset_ + p->size,
                     std::next(p) == parameters_.end() ? flat_size_ : std::next(p)->offset_};
    if (gap.size() == 0) continue;
    while (regions_[region + 1] <= gap.begin) ++region;
    gaps_[region].push_back(gap);
  }
}

LayerGroups ParameterTable::add_layer(const ModelConfig& config, const std::string& prefix) {
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  const int64_t q = config.q_size(), kv = config.kv_size();
  LayerGroups groups;
  groups.input_norm = add_group(kVector, {{prefix + "input_layernorm.weight", d}});
  groups.qkv = add_group(d, {{attention + "q_proj.weight", q},
                             {attention + "k_proj.weight", kv},
                             {attention + "v_proj.weight", kv}});
  if (config.qkv_bias) {
    groups.qkv_bias = add_group(kVector, {{attention + "q_proj.bias", q},
                                          {attention + "k_proj.bias", kv},
                                          {attention + "v_proj.bias", kv}});
  }
  if (config.qk_norm) {
    groups.q_norm = add_group(kVector, {{attention + "q_norm.weight", config.head_dim}});
    groups.k_norm = add_group(kVector, {{attention + "k_norm.weight", config.head_dim}});
  }
  groups.o = add_group(q, {{attention + "o_proj.weight", d}});
  groups.post_norm = add_group(kVector, {{prefix + "post_attention_layernorm.weight", d}});
  groups.gate_up = add_group(d, {{mlp + "gate_proj.weight", f}, {mlp + "up_proj.weight", f}});
  groups.down = add_group(f, {{mlp + "down_proj.weight", d}});
  return groups;
}

ParameterGroup ParameterTable::add_group(std::optional<int64_t> cols,
                                         const std::vector<Rows>& tensors) {
  ParameterGroup group(aligned(flat_size_), 0, cols.value_or(1));
  for (const auto& [name, rows] : tensors) {
    Parameter parameter;
    parameter.name = name;
    parameter.shape = {rows};
    if (cols) parameter.shape.push_back(*cols);
    parameter.offset_ = group.offset_ + group.rows_ * group.cols_;
    parameter.size = rows * group.cols_;
    parameter.trainable = module_.trainable;
    by_name_.emplace(name, parameters_.size());
    flat_size_ = parameter.offset_ + parameter.size;
    parameter_count_ += parameter.size;
    parameters_.push_back(std::move(parameter));
    group.rows_ += rows;
  }
  return group;
}

std::vector<HeldSlice> ParameterTable::slices(std::span<const Extent> stretches) const {
  std::vector<HeldSlice> slices;
  int64_t at = 0;
  for (const Extent& stretch : stretches) {
    if (stretch.size() == 0) continue;
    // The first tensor that ends behind the stretch's begin.
    auto p = std::upper_bound(
        parameters_.begin(), parameters_.end(), stretch.begin,
        [](int64_t begin, const Parameter& q) { return begin < q.offset_ + q.size; });
    for (; p != parameters_.end() && p->offset_ < stretch.end; ++p) {
      const int64_t begin = std::max(p->offset_, stretch.begin);
      const int64_t end = std::min(p->offset_ + p->size, stretch.end);
      slices.push_back({p - parameters_.begin(),
                        {begin - p->offset_, end - p->offset_},
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
    const Span<float> values = table.values(flat, p);
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
