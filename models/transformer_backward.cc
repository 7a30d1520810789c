#include <algorithm>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"
#include "models/transformer.h"
#include "models/transformer_internal.h"

namespace orrery::models {

TrainKv make_train_kv(const ModelConfig& config, Span<const kernels::AttentionSegment> segments,
                      Arena& arena) {
  TrainKv kv;
  int32_t next = 0;
  for (const kernels::AttentionSegment& s : segments) {
    std::vector<int32_t> table;
    const int64_t shared = s.position / kernels::kKvBlock;
    const int64_t partial = s.position % kernels::kKvBlock;
    if (s.parent >= 0) {
      const std::vector<int32_t>& parent = kv.tables[s.parent];
      table.assign(parent.begin(), parent.begin() + shared);
      if (partial > 0) kv.copies.copies.push_back({parent[shared], next, partial});
    } else {
      ORRERY_CHECK(s.position == 0, "a segment without a parent starts at position {}", s.position);
    }
    const int64_t tiles = (s.position + s.rows + kernels::kKvBlock - 1) / kernels::kKvBlock;
    while (std::ssize(table) < tiles) table.push_back(next++);
    kv.tables.push_back(std::move(table));
  }
  for (int64_t i = 0; i < segments.size(); ++i) {
    kv.segments.push_back(
        {segments[i].row_begin, segments[i].rows, segments[i].position, kv.tables[i]});
  }
  kv.pool = {nullptr, nullptr, next, config.num_key_value_heads, config.head_dim};
  kv.pool.k = arena.alloc<float>(next * kv.pool.block_elements());
  kv.pool.v = arena.alloc<float>(next * kv.pool.block_elements());
  std::fill_n(kv.pool.k, next * kv.pool.block_elements(), 0.0f);  // no slot may hold a NaN pattern
  std::fill_n(kv.pool.v, next * kv.pool.block_elements(), 0.0f);
  return kv;
}

void transformer_backward(const Context& ctx, const Transformer& model, const TrainBatch& batch,
                          const Activations& activations, Mat<const float> dhidden,
                          const FlatView& gradients, Mat<float> dembedding,
                          const FinalFrom& final_from, Arena& arena) {
  const PhaseScope phase(ctx, "backward");
  const ModelConfig& config = model.config();
  const ParameterTable& table = model.table();
  const auto t = static_cast<int64_t>(batch.tokens.size());
  const auto d = config.hidden_size, f = config.intermediate_size;
  const int64_t layers = config.num_hidden_layers;
  ORRERY_CHECK(gradients.size() == table.flat_size(), "gradients of {}", gradients.size());
  ORRERY_CHECK(dembedding.rows == t && dembedding.cols == d, "dembedding {} x {}", dembedding.rows,
               dembedding.cols);
  const auto grad = [&](int64_t offset, int64_t rows, int64_t cols) {
    return Mat<float>(gradients.at(offset), rows, cols);
  };
  const auto grad_vector = [&](int64_t offset, int64_t size) {
    return std::span<float>(gradients.at(offset), static_cast<size_t>(size));
  };

  const ArenaScope scope(arena);
  const Mat<float> dh =
      dembedding;  // gradient of the residual stream, carried down to the embedding
  for (int64_t row = 0; row < t; ++row) std::fill_n(dh.row(row), d, 0.0f);
  {
    const ArenaScope head(arena);
    const Mat<float> dlast = arena.mat<float>(dhidden.rows, d);
    std::fill_n(dlast.data, dlast.size(), 0.0f);
    kernels::rmsnorm_backward(ctx, dlast, grad_vector(table.final_norm(), d), dhidden,
                              activations.final_input, activations.rstd_final, model.final_norm());
    for (int64_t i = 0; i < dlast.rows;
         ++i) {  // in output order: a row may be named by several responses
      float* to = dh.row(batch.output_rows[static_cast<size_t>(i)]);
      const float* from = dlast.row(i);
      for (int64_t c = 0; c < d; ++c) to[c] += from[c];
    }
  }

  if (final_from) final_from(table.final_norm());  // and the head, which stands behind it

  const Mat<float> x = arena.mat<float>(t, d), dx = arena.mat<float>(t, d);
  const Mat<float> act = arena.mat<float>(t, f), dact = arena.mat<float>(t, f);
  const Mat<float> dgate_up = arena.mat<float>(t, 2 * f);
  const Mat<float> dqkv = arena.mat<float>(t, config.qkv_size()),
                   dattention = arena.mat<float>(t, config.q_size());
  for (int64_t i = layers - 1; i >= 0; --i) {
    const Activations::Layer& at = activations.layers[static_cast<size_t>(i)];
    const Transformer::Layer& layer = model.layer(i);
    const LayerOffsets& offset = table.layer(i);

    kernels::swiglu_forward(ctx, act, at.gate_up);
    kernels::matmul_backward_weight(ctx, grad(offset.down, d, f), dh, act, arena);
    kernels::matmul_backward_input(ctx, dact, dh, layer.down, /*accumulate=*/false, arena);
    kernels::swiglu_backward(ctx, dgate_up, dact, at.gate_up);
    kernels::rmsnorm_forward(ctx, x, {}, at.middle, layer.post_norm, config.rms_norm_eps);
    kernels::matmul_backward_weight(ctx, grad(offset.gate_up, 2 * f, d), dgate_up, x, arena);
    kernels::matmul_backward_input(ctx, dx, dgate_up, layer.gate_up, /*accumulate=*/false, arena);
    kernels::rmsnorm_backward(ctx, dh, grad_vector(offset.post_norm, d), dx, at.middle,
                              at.rstd_post, layer.post_norm);

    kernels::matmul_backward_weight(ctx, grad(offset.o, d, config.q_size()), dh, at.attention,
                                    arena);
    kernels::matmul_backward_input(ctx, dattention, dh, layer.o, /*accumulate=*/false, arena);
    const QkvHeads heads = split_qkv(config, at.qkv), dheads = split_qkv(config, dqkv);
    kernels::attention_backward(ctx, dheads.q, dheads.k, dheads.v,
                                as_heads<const float>(dattention, config.num_attention_heads),
                                as_heads<const float>(at.attention, config.num_attention_heads),
                                heads.q, heads.k, heads.v, at.lse, batch.segments,
                                attention_scale(config), arena);
    kernels::rope_backward(ctx, dheads.q, batch.positions, model.rope());
    kernels::rope_backward(ctx, dheads.k, batch.positions, model.rope());
    if (config.qk_norm) {
      const Mat<float> q_raw = at.qk_raw.col_range(0, config.q_size());
      const Mat<float> k_raw =
          at.qk_raw.col_range(config.q_size(), config.q_size() + config.kv_size());
      kernels::rmsnorm_heads_backward(
          ctx, dheads.q, grad_vector(offset.q_norm, config.head_dim), dheads.q,
          as_heads<const float>(q_raw, config.num_attention_heads), at.rstd_q, layer.q_norm);
      kernels::rmsnorm_heads_backward(
          ctx, dheads.k, grad_vector(offset.k_norm, config.head_dim), dheads.k,
          as_heads<const float>(k_raw, config.num_key_value_heads), at.rstd_k, layer.k_norm);
    }
    if (config.qkv_bias)
      kernels::bias_backward(ctx, grad_vector(offset.qkv_bias, config.qkv_size()), dqkv);
    kernels::rmsnorm_forward(ctx, x, {}, at.input, layer.input_norm, config.rms_norm_eps);
    kernels::matmul_backward_weight(ctx, grad(offset.qkv, config.qkv_size(), d), dqkv, x, arena);
    kernels::matmul_backward_input(ctx, dx, dqkv, layer.qkv, /*accumulate=*/false, arena);
    kernels::rmsnorm_backward(ctx, dh, grad_vector(offset.input_norm, d), dx, at.input,
                              at.rstd_input, layer.input_norm);
    if (final_from) final_from(offset.input_norm);  // a layer's first parameters
  }
}

}  // namespace orrery::models
