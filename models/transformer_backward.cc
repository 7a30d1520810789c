#include <algorithm>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/elementwise.h"
#include "kernels/rmsnorm.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "models/transformer.h"
#include "models/transformer_internal.h"

namespace orrery::models {

TransformerBackward::TransformerBackward(const Context& ctx, const Transformer& model,
                                         const BatchPlan& plan, const Activations& activations,
                                         ConstActMat dhidden, const FlatView& gradients,
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

Vec<float> TransformerBackward::grad_vector(int64_t offset, int64_t size) const {
  return {gradients_.at(offset), size};
}

void TransformerBackward::final_norm_backward() {
  const ModelConfig& config = model_.config();
  const int64_t t = dresidual_.rows, d = config.hidden_size;
  kernels::fill(ctx_, {.y = as_vec(dresidual_)});
  {
    const ArenaScope head(arena_);
    const Mat<float> dlast = arena_.mat<float>(dhidden_.rows, d);
    kernels::fill(ctx_, {.y = as_vec(dlast)});
    kernels::rmsnorm_backward(ctx_, {.dx = dlast,
                                     .dweight = grad_vector(model_.table().final_norm(), d),
                                     .dy = dhidden_,
                                     .x = activations_.final_input,
                                     .rstd = activations_.rstd_final,
                                     .weight = model_.final_norm(),
                                     .accumulate = true});
    // In output order: a row may be named by several responses.
    kernels::scatter_add_rows(ctx_, {.to = dresidual_, .from = dlast, .rows = plan_.output_rows});
  }
  const Buffers b = allocate(config, t, arena_);
  x_ = b.x;
  dx_ = b.dx;
  act_ = b.act;
  dact_ = b.dact;
  dgate_up_ = b.dgate_up;
  dqkv_ = b.dqkv;
  dattention_ = b.dattention;
}

TransformerBackward::Buffers TransformerBackward::allocate(const ModelConfig& config, int64_t t,
                                                           Arena& arena) {
  const DType dtype = Transformer::activation_dtype();
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  Buffers buffers;
  buffers.x = arena.act_mat(dtype, t, d);
  buffers.dx = arena.act_mat(dtype, t, d);
  buffers.act = arena.act_mat(dtype, t, f);
  buffers.dact = arena.act_mat(dtype, t, f);
  buffers.dgate_up = arena.act_mat(dtype, t, 2 * f);
  buffers.dqkv = arena.act_mat(dtype, t, config.qkv_size());
  buffers.dattention = arena.act_mat(dtype, t, config.q_size());
  return buffers;
}

void TransformerBackward::measure(const Transformer& model, const TrainBatch& batch, Arena& arena) {
  const ArenaScope scope(arena);
  {
    const ArenaScope head(arena);
    arena.mat<float>(batch.output_rows.size(), model.config().hidden_size);
  }
  allocate(model.config(), batch.tokens.size(), arena);
}

void TransformerBackward::layer_backward(int64_t index) {
  const ModelConfig& config = model_.config();
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  const Activations::Layer& at = activations_.layers[index];
  const Transformer::Layer& layer = model_.layer(index);
  const LayerOffsets& offset = model_.table().layer(index);

  kernels::swiglu_forward(ctx_, {.out = act_, .gate_up = at.gate_up});
  kernels::matmul_backward_weight(ctx_,
                                  {.dw = grad(offset.down, d, f), .dy = dresidual_, .x = act_});
  kernels::matmul_backward_input(ctx_, {.dx = dact_, .dy = dresidual_, .weight = layer.down});
  kernels::swiglu_backward(ctx_, {.d_gate_up = dgate_up_, .dout = dact_, .gate_up = at.gate_up});
  kernels::rmsnorm_forward(
      ctx_, {.y = x_, .x = at.middle, .weight = layer.post_norm, .eps = config.rms_norm_eps});
  kernels::matmul_backward_weight(ctx_,
                                  {.dw = grad(offset.gate_up, 2 * f, d), .dy = dgate_up_, .x = x_});
  kernels::matmul_backward_input(ctx_, {.dx = dx_, .dy = dgate_up_, .weight = layer.gate_up});
  kernels::rmsnorm_backward(ctx_, {.dx = dresidual_,
                                   .dweight = grad_vector(offset.post_norm, d),
                                   .dy = dx_,
                                   .x = at.middle,
                                   .rstd = at.rstd_post,
                                   .weight = layer.post_norm,
                                   .accumulate = true});

  kernels::matmul_backward_weight(
      ctx_, {.dw = grad(offset.o, d, config.q_size()), .dy = dresidual_, .x = at.attention});
  kernels::matmul_backward_input(ctx_, {.dx = dattention_, .dy = dresidual_, .weight = layer.o});
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
  const ActMat dq = queries(config, dqkv_), dk = keys(config, dqkv_);
  kernels::rope_backward(ctx_, rotation(model_, plan_, dq, config.num_attention_heads));
  kernels::rope_backward(ctx_, rotation(model_, plan_, dk, config.num_key_value_heads));
  if (config.qk_norm) {
    kernels::rmsnorm_backward(ctx_, {.dx = dq,
                                     .dweight = grad_vector(offset.q_norm, config.head_dim),
                                     .dy = dq,
                                     .x = queries(config, at.qk_raw),
                                     .rstd = as_vec(at.rstd_q),
                                     .weight = layer.q_norm,
                                     .heads = config.num_attention_heads});
    kernels::rmsnorm_backward(ctx_, {.dx = dk,
                                     .dweight = grad_vector(offset.k_norm, config.head_dim),
                                     .dy = dk,
                                     .x = keys(config, at.qk_raw),
                                     .rstd = as_vec(at.rstd_k),
                                     .weight = layer.k_norm,
                                     .heads = config.num_key_value_heads});
  }
  if (config.qkv_bias)
    kernels::bias_backward(ctx_,
                           {.db = grad_vector(offset.qkv_bias, config.qkv_size()), .dy = dqkv_});
  kernels::rmsnorm_forward(
      ctx_, {.y = x_, .x = at.input, .weight = layer.input_norm, .eps = config.rms_norm_eps});
  kernels::matmul_backward_weight(
      ctx_, {.dw = grad(offset.qkv, config.qkv_size(), d), .dy = dqkv_, .x = x_});
  kernels::matmul_backward_input(ctx_, {.dx = dx_, .dy = dqkv_, .weight = layer.qkv});
  kernels::rmsnorm_backward(ctx_, {.dx = dresidual_,
                                   .dweight = grad_vector(offset.input_norm, d),
                                   .dy = dx_,
                                   .x = at.input,
                                   .rstd = at.rstd_input,
                                   .weight = layer.input_norm,
                                   .accumulate = true});
}

}  // namespace orrery::models
