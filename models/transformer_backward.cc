#include <algorithm>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"
#include "models/transformer.h"
#include "models/transformer_internal.h"

namespace orrery::models {

TransformerBackward::TransformerBackward(const Context& ctx, const Transformer& model,
                                         const BatchPlan& plan, const Activations& activations,
                                         Mat<const float> dhidden, const FlatView& gradients,
                                         Mat<float> dembedding, Arena& arena)
    : ctx_(ctx),
      model_(model),
      plan_(plan),
      activations_(activations),
      dhidden_(dhidden),
      gradients_(gradients),
      dresidual_(dembedding),
      arena_(arena),
      scope_(arena),
      layers_left_(model.config().num_hidden_layers) {
  model.check_packed();
  ORRERY_CHECK(gradients.size() == model.table().flat_size(), "gradients of {}", gradients.size());
  ORRERY_CHECK(dembedding.rows == plan.rows() && dembedding.cols == model.config().hidden_size,
               "dembedding {} x {}", dembedding.rows, dembedding.cols);
}

std::optional<int64_t> TransformerBackward::next() {
  if (!begun_) {
    begun_ = true;
    final_norm_backward();
    return model_.table().final_norm();  // and the head, which stands behind it
  }
  if (layers_left_ == 0) return std::nullopt;
  layer_backward(--layers_left_);
  return model_.table().layer(layers_left_).input_norm;  // a layer's first parameters
}

Mat<float> TransformerBackward::grad(int64_t offset, int64_t rows, int64_t cols) const {
  return {gradients_.at(offset), rows, cols};
}

Span<float> TransformerBackward::grad_vector(int64_t offset, int64_t size) const {
  return {gradients_.at(offset), size};
}

void TransformerBackward::final_norm_backward() {
  const ModelConfig& config = model_.config();
  const int64_t t = dresidual_.rows, d = config.hidden_size, f = config.intermediate_size;
  for (int64_t row = 0; row < t; ++row) std::fill_n(dresidual_.row(row), d, 0.0f);
  {
    const ArenaScope head(arena_);
    const Mat<float> dlast = arena_.mat<float>(dhidden_.rows, d);
    std::fill_n(dlast.data, dlast.size(), 0.0f);
    kernels::rmsnorm_backward(ctx_, dlast, grad_vector(model_.table().final_norm(), d), dhidden_,
                              activations_.final_input, activations_.rstd_final,
                              model_.final_norm());
    // In output order: a row may be named by several responses.
    for (int64_t i = 0; i < dlast.rows; ++i) {
      float* to = dresidual_.row(Span<const int32_t>(plan_.output_rows)[i]);
      const float* from = dlast.row(i);
      for (int64_t c = 0; c < d; ++c) to[c] += from[c];
    }
  }
  x_ = arena_.mat<float>(t, d);
  dx_ = arena_.mat<float>(t, d);
  act_ = arena_.mat<float>(t, f);
  dact_ = arena_.mat<float>(t, f);
  dgate_up_ = arena_.mat<float>(t, 2 * f);
  dqkv_ = arena_.mat<float>(t, config.qkv_size());
  dattention_ = arena_.mat<float>(t, config.q_size());
}

void TransformerBackward::layer_backward(int64_t index) {
  const ModelConfig& config = model_.config();
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  const Activations::Layer& at = activations_.layers[index];
  const Transformer::Layer& layer = model_.layer(index);
  const LayerOffsets& offset = model_.table().layer(index);

  kernels::swiglu_forward(ctx_, act_, at.gate_up);
  kernels::matmul_backward_weight(ctx_, grad(offset.down, d, f), dresidual_, act_, arena_);
  kernels::matmul_backward_input(ctx_, dact_, dresidual_, layer.down, /*accumulate=*/false, arena_);
  kernels::swiglu_backward(ctx_, dgate_up_, dact_, at.gate_up);
  kernels::rmsnorm_forward(ctx_, x_, {}, at.middle, layer.post_norm, config.rms_norm_eps);
  kernels::matmul_backward_weight(ctx_, grad(offset.gate_up, 2 * f, d), dgate_up_, x_, arena_);
  kernels::matmul_backward_input(ctx_, dx_, dgate_up_, layer.gate_up, /*accumulate=*/false, arena_);
  kernels::rmsnorm_backward(ctx_, dresidual_, grad_vector(offset.post_norm, d), dx_, at.middle,
                            at.rstd_post, layer.post_norm);

  kernels::matmul_backward_weight(ctx_, grad(offset.o, d, config.q_size()), dresidual_,
                                  at.attention, arena_);
  kernels::matmul_backward_input(ctx_, dattention_, dresidual_, layer.o, /*accumulate=*/false,
                                 arena_);
  const QkvHeads dheads = split_qkv(config, dqkv_);
  kernels::attention_backward(ctx_, {.dq = queries(config, dqkv_),
                                     .dk = keys(config, dqkv_),
                                     .dv = values(config, dqkv_),
                                     .dout = dattention_,
                                     .out = at.attention,
                                     .q = queries(config, at.qkv),
                                     .k = keys(config, at.qkv),
                                     .v = values(config, at.qkv),
                                     .lse = at.lse,
                                     .plan = plan_.backward,
                                     .scale = attention_scale(config)});
  kernels::rope_backward(ctx_, dheads.q, plan_.positions, model_.rope());
  kernels::rope_backward(ctx_, dheads.k, plan_.positions, model_.rope());
  if (config.qk_norm) {
    const Mat<float> q_raw = at.qk_raw.col_range(0, config.q_size());
    const Mat<float> k_raw =
        at.qk_raw.col_range(config.q_size(), config.q_size() + config.kv_size());
    kernels::rmsnorm_heads_backward(
        ctx_, dheads.q, grad_vector(offset.q_norm, config.head_dim), dheads.q,
        as_heads<const float>(q_raw, config.num_attention_heads), at.rstd_q, layer.q_norm);
    kernels::rmsnorm_heads_backward(
        ctx_, dheads.k, grad_vector(offset.k_norm, config.head_dim), dheads.k,
        as_heads<const float>(k_raw, config.num_key_value_heads), at.rstd_k, layer.k_norm);
  }
  if (config.qkv_bias)
    kernels::bias_backward(ctx_, grad_vector(offset.qkv_bias, config.qkv_size()), dqkv_);
  kernels::rmsnorm_forward(ctx_, x_, {}, at.input, layer.input_norm, config.rms_norm_eps);
  kernels::matmul_backward_weight(ctx_, grad(offset.qkv, config.qkv_size(), d), dqkv_, x_, arena_);
  kernels::matmul_backward_input(ctx_, dx_, dqkv_, layer.qkv, /*accumulate=*/false, arena_);
  kernels::rmsnorm_backward(ctx_, dresidual_, grad_vector(offset.input_norm, d), dx_, at.input,
                            at.rstd_input, layer.input_norm);
}

}  // namespace orrery::models
