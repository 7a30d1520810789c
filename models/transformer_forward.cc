// One forward for prefill, decode and training: transformer_forward and
// transformer_forward_train differ only in where a layer's intermediate values live and
// which KV pool attention reads.
#include <numeric>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/embedding.h"
#include "kernels/rmsnorm.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "models/transformer.h"
#include "models/transformer_internal.h"

namespace orrery::models {
namespace {

/// The decoder layer: `at` receives every intermediate value (training keeps them,
/// inference overwrites them). In: residual stream h (at.input). Out: at.middle is the
/// stream after attention, `delta` what the MLP adds to it.
void layer_forward(const Context& ctx, const Transformer& model, int64_t index,
                   const Activations::Layer& at, ConstActMat x_norm, const BatchPlan& plan,
                   const kernels::KvPool& pool, ActMat x_post, ActMat act, Mat<float> delta) {
  const ModelConfig& config = model.config();
  const Transformer::Layer& layer = model.layer(index);
  kernels::matmul_forward(ctx,
                          {.y = at.qkv, .x = x_norm, .weight = layer.qkv, .bias = layer.qkv_bias});
  const ActMat q = queries(config, at.qkv), k = keys(config, at.qkv), v = values(config, at.qkv);
  if (config.qk_norm) {
    if (at.qk_raw.data != nullptr) {
      kernels::copy_rows(ctx, {.to = at.qk_raw, .from = at.qkv.col_range(0, at.qk_raw.cols)});
    }
    kernels::rmsnorm_forward(ctx, {.y = q,
                                   .rstd = as_vec(at.rstd_q),
                                   .x = q,
                                   .weight = layer.q_norm,
                                   .eps = config.rms_norm_eps,
                                   .heads = config.num_attention_heads});
    kernels::rmsnorm_forward(ctx, {.y = k,
                                   .rstd = as_vec(at.rstd_k),
                                   .x = k,
                                   .weight = layer.k_norm,
                                   .eps = config.rms_norm_eps,
                                   .heads = config.num_key_value_heads});
  }
  kernels::rope_forward(ctx, rotation(model, plan, q, config.num_attention_heads));
  kernels::rope_forward(ctx, rotation(model, plan, k, config.num_key_value_heads));
  kernels::kv_write(ctx, {.pool = pool, .k = k, .v = v, .plan = plan.attention});
  kernels::kv_copy(ctx, {.pool = pool, .plan = plan.copies});
  kernels::attention_forward(ctx, {.out = at.attention,
                                   .lse = at.lse,
                                   .q = q,
                                   .pool = pool,
                                   .plan = plan.attention,
                                   .scale = attention_scale(config)});
  kernels::matmul_forward(ctx, {.y = delta, .x = at.attention, .weight = layer.o});
  kernels::rmsnorm_residual_forward(ctx, {.h = at.middle,
                                          .y = x_post,
                                          .rstd = at.rstd_post,
                                          .x = at.input,
                                          .delta = delta,
                                          .weight = layer.post_norm,
                                          .eps = config.rms_norm_eps});
  kernels::matmul_forward(ctx, {.y = at.gate_up, .x = x_post, .weight = layer.gate_up});
  kernels::swiglu_forward(ctx, {.out = act, .gate_up = at.gate_up});
  kernels::matmul_forward(ctx, {.y = delta, .x = act, .weight = layer.down});
}

/// What transformer_forward takes: one set of buffers for all layers, as the residual
/// stream is updated in place.
struct ForwardBuffers {
  Activations::Layer at;
  ActMat x, act;
  Mat<float> delta, last, last_delta;
};

ForwardBuffers allocate_forward(const ModelConfig& config, int64_t t, int64_t r, Arena& arena) {
  const DType dtype = Transformer::activation_dtype();
  const int64_t d = config.hidden_size;
  ForwardBuffers buffers;
  Activations::Layer& at = buffers.at;
  at.input = at.middle = arena.mat<float>(t, d);
  at.qkv = arena.act_mat(dtype, t, config.qkv_size());
  at.attention = arena.act_mat(dtype, t, config.q_size());
  at.gate_up = arena.act_mat(dtype, t, 2 * config.intermediate_size);
  buffers.x = arena.act_mat(dtype, t, d);
  buffers.delta = arena.mat<float>(t, d);
  buffers.act = arena.act_mat(dtype, t, config.intermediate_size);
  buffers.last = arena.mat<float>(r, d);
  buffers.last_delta = arena.mat<float>(r, d);
  return buffers;
}

Activations allocate_activations(const ModelConfig& config, int64_t t, int64_t r, Arena& arena) {
  const DType dtype = Transformer::activation_dtype();
  const int64_t d = config.hidden_size;
  Activations result;
  result.layers.resize(config.num_hidden_layers);
  for (Activations::Layer& at : result.layers) {
    at.input = arena.mat<float>(t, d);
    at.qkv = arena.act_mat(dtype, t, config.qkv_size());
    if (config.qk_norm) {
      at.qk_raw = arena.act_mat(dtype, t, config.q_size() + config.kv_size());
      at.rstd_q = arena.mat<float>(t, config.num_attention_heads);
      at.rstd_k = arena.mat<float>(t, config.num_key_value_heads);
    }
    at.attention = arena.act_mat(dtype, t, config.q_size());
    at.middle = arena.mat<float>(t, d);
    at.gate_up = arena.act_mat(dtype, t, 2 * config.intermediate_size);
    at.lse = arena.mat<float>(t, config.num_attention_heads);
    at.rstd_input = {arena.alloc<float>(t), t};
    at.rstd_post = {arena.alloc<float>(t), t};
  }
  result.final_input = arena.mat<float>(r, d);
  result.rstd_final = {arena.alloc<float>(r), r};
  return result;
}

/// What transformer_forward_train takes besides, for as long as it runs.
struct TrainBuffers {
  kernels::KvPool pool;  ///< of one layer: the layers use it in turn
  ActMat x, act;
  Mat<float> delta, last_delta;
};

TrainBuffers allocate_train(const ModelConfig& config, Device device, int64_t blocks, int64_t t,
                            int64_t r, Arena& arena) {
  const DType dtype = Transformer::activation_dtype();
  const int64_t d = config.hidden_size, kv_heads = config.num_key_value_heads;
  TrainBuffers buffers;
  const auto bytes = static_cast<int64_t>(
      kernels::kv_pool_bytes(device, dtype, blocks, kv_heads, config.head_dim));
  buffers.pool = kernels::make_kv_pool(device, dtype, blocks, kv_heads, config.head_dim,
                                       arena.alloc<std::byte>(bytes));
  buffers.x = arena.act_mat(dtype, t, d);
  buffers.delta = arena.mat<float>(t, d);
  buffers.act = arena.act_mat(dtype, t, config.intermediate_size);
  buffers.last_delta = arena.mat<float>(r, d);
  return buffers;
}

void check_hidden(const Transformer& model, const BatchPlan& plan, ConstActMat hidden) {
  model.check_packed();
  ORRERY_CHECK(hidden.rows == plan.output_rows.size && hidden.cols == model.config().hidden_size,
               "hidden is {} x {}", hidden.rows, hidden.cols);
}

}  // namespace

void transformer_forward(const Context& ctx, const Transformer& model, const BatchPlan& plan,
                         const KvCache& cache, ActMat hidden, Arena& arena) {
  const ModelConfig& config = model.config();
  check_hidden(model, plan, hidden);
  const int64_t t = plan.rows();
  if (t == 0) return;
  const ArenaScope scope(arena);
  const auto [at, x, act, delta, last, last_delta] =
      allocate_forward(config, t, plan.output_rows.size, arena);

  kernels::embedding_forward(ctx,
                             {.out = at.input, .table = model.embedding(), .ids = plan.tokens});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    if (i == 0) {
      kernels::rmsnorm_forward(
          ctx,
          {.y = x, .x = at.input, .weight = model.layer(0).input_norm, .eps = config.rms_norm_eps});
    } else {
      kernels::rmsnorm_residual_forward(ctx, {.h = at.input,
                                              .y = x,
                                              .x = at.input,
                                              .delta = delta,
                                              .weight = model.layer(i).input_norm,
                                              .eps = config.rms_norm_eps});
    }
    layer_forward(ctx, model, i, at, x, plan, cache.layer(i), x, act, delta);
  }
  if (plan.output_rows.empty()) return;
  kernels::gather_rows(ctx, {.to = last, .from = at.input, .rows = plan.output_rows});
  kernels::gather_rows(ctx, {.to = last_delta, .from = delta, .rows = plan.output_rows});
  kernels::rmsnorm_residual_forward(ctx, {.h = last,
                                          .y = hidden,
                                          .x = last,
                                          .delta = last_delta,
                                          .weight = model.final_norm(),
                                          .eps = config.rms_norm_eps});
}

Activations transformer_forward_train(const Context& ctx, const Transformer& model,
                                      const BatchPlan& plan, ActMat hidden, Arena& arena) {
  const ProfilePhaseScope phase(ctx, "forward");
  const ModelConfig& config = model.config();
  check_hidden(model, plan, hidden);
  const int64_t t = plan.rows();
  const int64_t r = plan.output_rows.size;
  Activations result = allocate_activations(config, t, r, arena);

  const ArenaScope scope(arena);
  const auto [pool, x, act, delta, last_delta] =
      allocate_train(config, ctx.device, plan.attention.pool_blocks, t, r, arena);
  kernels::kv_clear(ctx, {.pool = pool});  // no slot may hold a NaN pattern
  kernels::embedding_forward(
      ctx, {.out = result.layers[0].input, .table = model.embedding(), .ids = plan.tokens});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const Activations::Layer& at = result.layers[i];
    if (i == 0) {
      kernels::rmsnorm_forward(ctx, {.y = x,
                                     .rstd = at.rstd_input,
                                     .x = at.input,
                                     .weight = model.layer(0).input_norm,
                                     .eps = config.rms_norm_eps});
    } else {
      kernels::rmsnorm_residual_forward(ctx, {.h = at.input,
                                              .y = x,
                                              .rstd = at.rstd_input,
                                              .x = result.layers[i - 1].middle,
                                              .delta = delta,
                                              .weight = model.layer(i).input_norm,
                                              .eps = config.rms_norm_eps});
    }
    layer_forward(ctx, model, i, at, x, plan, pool, x, act, delta);
  }
  kernels::gather_rows(
      ctx,
      {.to = result.final_input, .from = result.layers.back().middle, .rows = plan.output_rows});
  kernels::gather_rows(ctx, {.to = last_delta, .from = delta, .rows = plan.output_rows});
  kernels::rmsnorm_residual_forward(ctx, {.h = result.final_input,
                                          .y = hidden,
                                          .rstd = result.rstd_final,
                                          .x = result.final_input,
                                          .delta = last_delta,
                                          .weight = model.final_norm(),
                                          .eps = config.rms_norm_eps});
  return result;
}

void measure_forward(const Transformer& model, const ForwardBatch& batch, Arena& arena) {
  measure_plan(batch, arena);
  const ArenaScope scope(arena);
  allocate_forward(model.config(), batch.tokens.size(), batch.output_rows.size(), arena);
}

void measure_forward_train(const Transformer& model, const TrainBatch& batch, Arena& arena) {
  const int64_t blocks = measure_plan(batch, arena);
  const int64_t t = batch.tokens.size(), r = batch.output_rows.size();
  allocate_activations(model.config(), t, r, arena);
  const ArenaScope scope(arena);
  allocate_train(model.config(), arena.device(), blocks, t, r, arena);
}

void lm_head_forward(const Context& ctx, const Transformer& model, Mat<float> logits,
                     ConstActMat hidden) {
  const ProfileOpScope profile(ctx, "lm head", 0, 0);  // the product adds its own
  kernels::matmul_forward(ctx, {.y = logits, .x = hidden, .weight = model.lm_head()});
}

}  // namespace orrery::models
