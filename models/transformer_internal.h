// Shared by the transformer's forward and backward; not for other folders.
#pragma once

#include <cmath>

#include "core/parallel.h"
#include "core/span.h"
#include "models/transformer.h"

namespace orrery::models {

struct QkvHeads {
  Heads<float> q, k, v;
};

inline QkvHeads split_qkv(const ModelConfig& config, Mat<float> qkv) {
  const auto view = [&](int64_t column, int64_t heads) {
    return Heads<float>(qkv.data + column, qkv.rows, heads, config.head_dim, qkv.stride);
  };
  return {view(0, config.num_attention_heads), view(config.q_size(), config.num_key_value_heads),
          view(config.q_size() + config.kv_size(), config.num_key_value_heads)};
}

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

inline float attention_scale(const ModelConfig& config) {
  const double head_dim = config.head_dim;
  return static_cast<float>(1.0 / std::sqrt(head_dim));
}

inline void copy_rows(const Context& ctx, Mat<float> out, Mat<const float> in) {
  parallel_for(ctx, in.rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(in.row(r), in.cols, out.row(r));
  });
}

}  // namespace orrery::models
