#include "models/block.h"

#include <cmath>

#include "kernels/attention.h"
#include "kernels/kv_pool.h"
#include "kernels/rmsnorm.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"

namespace orrery::models {
namespace {

/// The residual stream's gradient, as o's and down's products take it.
ConstActMat residual_operand(const Block::Backward& op) {
  if (op.buffers.drounded.data != nullptr) return op.buffers.drounded;
  return op.dresidual;
}

float attention_scale(const ModelConfig& config) {
  const double head_dim = config.head_dim;
  return static_cast<float>(1.0 / std::sqrt(head_dim));
}

}  // namespace

Block::Block(const ModelConfig& config, const LayerGroups& groups, Vec<const float> parameters,
             DType compute_dtype, const kernels::RopeTable& rope)
    : hidden_(config.hidden_size),
      intermediate_(config.intermediate_size),
      heads_(config.num_attention_heads),
      kv_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      eps_(config.rms_norm_eps),
      scale_(attention_scale(config)),
      cos_(rope.cos),
      sin_(rope.sin),
      input_norm_{groups.input_norm, groups.input_norm.vec(parameters)},
      q_norm_{groups.q_norm, groups.q_norm.vec(parameters)},
      k_norm_{groups.k_norm, groups.k_norm.vec(parameters)},
      post_norm_{groups.post_norm, groups.post_norm.vec(parameters)},
      qkv_(groups.qkv, groups.qkv_bias, parameters, compute_dtype),
      o_(groups.o, {}, parameters, compute_dtype),
      gate_up_(groups.gate_up, {}, parameters, compute_dtype),
      down_(groups.down, {}, parameters, compute_dtype) {}

size_t Block::packed_bytes(Device device) const {
  return qkv_.packed_bytes(device) + o_.packed_bytes(device) + gate_up_.packed_bytes(device) +
         down_.packed_bytes(device);
}

void Block::pack(const Context& ctx, std::byte* memory) {
  for (Linear* linear : {&qkv_, &o_, &gate_up_, &down_}) {
    linear->pack(ctx, memory);
    memory += linear->packed_bytes(ctx.device);
  }
}

BlockActivations Block::allocate_shared(int64_t t, Arena& arena) const {
  BlockActivations at;
  at.input = at.middle = arena.mat<float>(t, hidden_);
  at.qkv = arena.act_mat(dtype(), t, q_size() + 2 * kv_size());
  at.attention = arena.act_mat(dtype(), t, q_size());
  at.gate_up = arena.act_mat(dtype(), t, 2 * intermediate_);
  return at;
}

BlockActivations Block::allocate_kept(int64_t t, Arena& arena) const {
  BlockActivations at;
  at.input = arena.mat<float>(t, hidden_);
  at.qkv = arena.act_mat(dtype(), t, q_size() + 2 * kv_size());
  if (has_qk_norm()) {
    at.qk_raw = arena.act_mat(dtype(), t, q_size() + kv_size());
    at.rstd_q = arena.mat<float>(t, heads_);
    at.rstd_k = arena.mat<float>(t, kv_heads_);
  }
  at.attention = arena.act_mat(dtype(), t, q_size());
  at.middle = arena.mat<float>(t, hidden_);
  at.gate_up = arena.act_mat(dtype(), t, 2 * intermediate_);
  at.lse = arena.mat<float>(t, heads_);
  at.rstd_input = arena.vec<float>(t);
  at.rstd_post = arena.vec<float>(t);
  return at;
}

Block::ForwardBuffers Block::allocate_forward(int64_t t, Arena& arena) const {
  ForwardBuffers buffers;
  buffers.x = arena.act_mat(dtype(), t, hidden_);
  buffers.delta = arena.mat<float>(t, hidden_);
  buffers.act = arena.act_mat(dtype(), t, intermediate_);
  return buffers;
}

Block::BackwardBuffers Block::allocate_backward(int64_t t, Arena& arena) const {
  BackwardBuffers buffers;
  buffers.x = arena.act_mat(dtype(), t, hidden_);
  buffers.dx = arena.mat<float>(t, hidden_);
  if (dtype() != DType::kF32) buffers.drounded = arena.act_mat(dtype(), t, hidden_);
  buffers.act = arena.act_mat(dtype(), t, intermediate_);
  buffers.dact = arena.act_mat(dtype(), t, intermediate_);
  buffers.dgate_up = arena.act_mat(dtype(), t, 2 * intermediate_);
  buffers.dqkv = arena.act_mat(dtype(), t, q_size() + 2 * kv_size());
  buffers.dattention = arena.act_mat(dtype(), t, q_size());
  return buffers;
}

void Block::forward(const Context& ctx, const Forward& op) const {
  const auto& [plan, pool, before, at, buffers] = op;
  const auto& [x, act, delta] = buffers;
  if (before.data == nullptr) {
    kernels::rmsnorm_forward(ctx, {.y = x,
                                   .rstd = at.rstd_input,
                                   .x = at.input,
                                   .weight = input_norm_.weight,
                                   .eps = eps_,
                                   .numerics = numerics(ctx)});
  } else {
    kernels::rmsnorm_residual_forward(ctx, {.h = at.input,
                                            .y = x,
                                            .rstd = at.rstd_input,
                                            .x = before,
                                            .delta = delta,
                                            .weight = input_norm_.weight,
                                            .eps = eps_,
                                            .numerics = numerics(ctx)});
  }
  qkv_.forward(ctx, at.qkv, x);
  attention_forward(ctx, op);
  o_.forward(ctx, delta, at.attention);
  kernels::rmsnorm_residual_forward(ctx, {.h = at.middle,
                                          .y = x,
                                          .rstd = at.rstd_post,
                                          .x = at.input,
                                          .delta = delta,
                                          .weight = post_norm_.weight,
                                          .eps = eps_,
                                          .numerics = numerics(ctx)});
  gate_up_.forward(ctx, at.gate_up, x);
  kernels::swiglu_forward(ctx, {.out = act, .gate_up = at.gate_up});
  down_.forward(ctx, delta, act);
}

/// From the product's queries, keys and values, at.qkv, to at.attention.
void Block::attention_forward(const Context& ctx, const Forward& op) const {
  const BlockActivations& at = op.at;
  const ActMat q = queries(at.qkv);
  if (has_qk_norm()) {
    const ActMat k = keys(at.qkv);
    if (at.qk_raw.data != nullptr) {
      kernels::copy_rows(ctx, {.to = at.qk_raw, .from = at.qkv.col_range(0, at.qk_raw.cols)});
    }
    kernels::rmsnorm_forward(ctx, {.y = q,
                                   .rstd = as_vec(at.rstd_q),
                                   .x = q,
                                   .weight = q_norm_.weight,
                                   .eps = eps_,
                                   .heads = heads_,
                                   .numerics = numerics(ctx)});
    kernels::rmsnorm_forward(ctx, {.y = k,
                                   .rstd = as_vec(at.rstd_k),
                                   .x = k,
                                   .weight = k_norm_.weight,
                                   .eps = eps_,
                                   .heads = kv_heads_,
                                   .numerics = numerics(ctx)});
  }
  kernels::rope_kv_write(
      ctx,
      {.pool = op.pool, .qkv = at.qkv, .rotation = rotation(op.plan), .plan = op.plan.attention});
  kernels::kv_copy(ctx, {.pool = op.pool, .plan = op.plan.copies});
  kernels::attention_forward(ctx, {.out = at.attention,
                                   .lse = at.lse,
                                   .q = q,
                                   .pool = op.pool,
                                   .plan = op.plan.attention,
                                   .scale = scale_});
}

void Block::backward(const Context& ctx, const Backward& op, const FlatView& gradients) const {
  mlp_backward(ctx, op, gradients);
  const auto& [plan, at, dresidual, buffers, accumulate] = op;
  o_.backward(ctx,
              {.dx = buffers.dattention,
               .dy = residual_operand(op),
               .x = at.attention,
               .run_ends = plan.run_ends,
               .sum_runs = plan.sum_runs,
               .accumulate = accumulate},
              gradients);
  attention_backward(ctx, op, gradients);
  kernels::rmsnorm_forward(ctx, {.y = buffers.x,
                                 .x = at.input,
                                 .weight = input_norm_.weight,
                                 .eps = eps_,
                                 .numerics = numerics(ctx)});
  qkv_.backward(ctx,
                {.dx = buffers.dx,
                 .dy = buffers.dqkv,
                 .x = buffers.x,
                 .run_ends = plan.run_ends,
                 .sum_runs = plan.sum_runs,
                 .accumulate = accumulate},
                gradients);
  kernels::rmsnorm_backward(ctx, {.dx = dresidual,
                                  .dx_rounded = buffers.drounded,
                                  .dweight = input_norm_.group.vec(gradients),
                                  .dy = buffers.dx,
                                  .x = at.input,
                                  .rstd = at.rstd_input,
                                  .weight = input_norm_.weight,
                                  .accumulate = true,
                                  .accumulate_dweight = accumulate,
                                  .numerics = numerics(ctx),
                                  .run_ends = plan.sum_runs});
}

void Block::mlp_backward(const Context& ctx, const Backward& op, const FlatView& gradients) const {
  const auto& [plan, at, dresidual, buffers, accumulate] = op;
  const auto& [x, act, dact, dgate_up, dqkv, dattention, dx, drounded] = buffers;
  kernels::swiglu_forward(ctx, {.out = act, .gate_up = at.gate_up});
  down_.backward(ctx,
                 {.dx = dact,
                  .dy = residual_operand(op),
                  .x = act,
                  .run_ends = plan.run_ends,
                  .sum_runs = plan.sum_runs,
                  .accumulate = accumulate},
                 gradients);
  kernels::swiglu_backward(ctx, {.d_gate_up = dgate_up, .dout = dact, .gate_up = at.gate_up});
  kernels::rmsnorm_forward(ctx, {.y = x,
                                 .x = at.middle,
                                 .weight = post_norm_.weight,
                                 .eps = eps_,
                                 .numerics = numerics(ctx)});
  gate_up_.backward(ctx,
                    {.dx = dx,
                     .dy = dgate_up,
                     .x = x,
                     .run_ends = plan.run_ends,
                     .sum_runs = plan.sum_runs,
                     .accumulate = accumulate},
                    gradients);
  kernels::rmsnorm_backward(ctx, {.dx = dresidual,
                                  .dx_rounded = drounded,
                                  .dweight = post_norm_.group.vec(gradients),
                                  .dy = dx,
                                  .x = at.middle,
                                  .rstd = at.rstd_post,
                                  .weight = post_norm_.weight,
                                  .accumulate = true,
                                  .accumulate_dweight = accumulate,
                                  .numerics = numerics(ctx),
                                  .run_ends = plan.sum_runs});
}

/// From buffers.dattention to buffers.dqkv, the gradient of what the product gave.
void Block::attention_backward(const Context& ctx, const Backward& op,
                               const FlatView& gradients) const {
  const BlockActivations& at = op.at;
  const ActMat dqkv = op.buffers.dqkv;
  const ActMat dq = queries(dqkv), dk = keys(dqkv);
  kernels::attention_backward(ctx, {.dq = dq,
                                    .dk = dk,
                                    .dv = values(dqkv),
                                    .dout = op.buffers.dattention,
                                    .out = at.attention,
                                    .q = queries(at.qkv),
                                    .k = keys(at.qkv),
                                    .v = values(at.qkv),
                                    .lse = at.lse,
                                    .plan = op.plan.backward,
                                    .scale = scale_});
  // Of queries and keys at once, which stand side by side.
  kernels::rope_backward(ctx, {.dx = dqkv.col_range(0, q_size() + kv_size()),
                               .heads = heads_ + kv_heads_,
                               .rotation = rotation(op.plan)});
  if (!has_qk_norm()) return;
  kernels::rmsnorm_backward(ctx, {.dx = dq,
                                  .dweight = q_norm_.group.vec(gradients),
                                  .dy = dq,
                                  .x = queries(at.qk_raw),
                                  .rstd = as_vec(at.rstd_q),
                                  .weight = q_norm_.weight,
                                  .accumulate_dweight = op.accumulate,
                                  .heads = heads_,
                                  .numerics = numerics(ctx),
                                  .run_ends = op.plan.sum_runs});
  kernels::rmsnorm_backward(ctx, {.dx = dk,
                                  .dweight = k_norm_.group.vec(gradients),
                                  .dy = dk,
                                  .x = keys(at.qk_raw),
                                  .rstd = as_vec(at.rstd_k),
                                  .weight = k_norm_.weight,
                                  .accumulate_dweight = op.accumulate,
                                  .heads = kv_heads_,
                                  .numerics = numerics(ctx),
                                  .run_ends = op.plan.sum_runs});
}

}  // namespace orrery::models
