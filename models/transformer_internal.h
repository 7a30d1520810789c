// Shared by the transformer's forward and backward; not for other folders.
#pragma once

#include <cmath>

#include "core/span.h"
#include "models/transformer.h"

namespace orrery::models {

/// The columns of queries, keys and values in rows of q, k, v.
template <class Matrix>
Matrix queries(const ModelConfig& config, const Matrix& qkv) {
  return qkv.col_range(0, config.q_size());
}
template <class Matrix>
Matrix keys(const ModelConfig& config, const Matrix& qkv) {
  return qkv.col_range(config.q_size(), config.q_size() + config.kv_size());
}
template <class Matrix>
Matrix values(const ModelConfig& config, const Matrix& qkv) {
  return qkv.col_range(config.q_size() + config.kv_size(), config.qkv_size());
}

/// The rotation of a batch's queries or keys, x [T, heads * head_dim], by position.
inline kernels::Rope rotation(const Transformer& model, const BatchPlan& plan, ActMat x,
                              int64_t heads) {
  const kernels::RopeTable& rope = model.rope();
  return {.x = x, .heads = heads, .positions = plan.positions, .cos = rope.cos, .sin = rope.sin};
}

inline float attention_scale(const ModelConfig& config) {
  const double head_dim = config.head_dim;
  return static_cast<float>(1.0 / std::sqrt(head_dim));
}

}  // namespace orrery::models
