// One forward for prefill, decode and training: transformer_forward and
// transformer_forward_train differ only in where a block's intermediate values live
// and which KV pool attention reads.
#include "core/error.h"
#include "core/profile.h"
#include "kernels/embedding.h"
#include "kernels/kv_pool.h"
#include "kernels/numerics.h"
#include "kernels/rmsnorm.h"
#include "kernels/rows.h"
#include "models/transformer.h"

namespace orrery::models {
namespace {

/// What transformer_forward takes: one set of buffers for all blocks.
struct InferenceBuffers {
  BlockActivations at;
  Block::ForwardBuffers shared;
  Mat<float> last, last_delta;
};

InferenceBuffers allocate_inference(const Transformer& model, int64_t t, int64_t r, Arena& arena) {
  const Block& block = model.blocks().front();
  const int64_t d = model.config().hidden_size;
  InferenceBuffers buffers;
  buffers.at = block.allocate_shared(t, arena);
  buffers.shared = block.allocate_forward(t, arena);
  buffers.last = arena.mat<float>(r, d);
  buffers.last_delta = arena.mat<float>(r, d);
  return buffers;
}

Activations allocate_activations(const Transformer& model, int64_t t, int64_t r, Arena& arena) {
  Activations result;
  for (const Block& block : model.blocks()) result.blocks.push_back(block.allocate_kept(t, arena));
  result.final_input = arena.mat<float>(r, model.config().hidden_size);
  result.rstd_final = arena.vec<float>(r);
  return result;
}

/// What transformer_forward_train takes besides, for as long as it runs.
struct TrainBuffers {
  kernels::KvPool pool;  ///< of one block: they use it in turn
  Block::ForwardBuffers shared;
  Mat<float> last_delta;
};

TrainBuffers allocate_train(const Transformer& model, Device device, int64_t pool_blocks, int64_t t,
                            int64_t r, Arena& arena) {
  const ModelConfig& config = model.config();
  const DType dtype = model.compute_dtype();
  const int64_t kv_heads = config.num_key_value_heads;
  TrainBuffers buffers;
  const auto bytes = static_cast<int64_t>(
      kernels::kv_pool_bytes(device, dtype, pool_blocks, kv_heads, config.head_dim));
  buffers.pool = kernels::make_kv_pool(device, dtype, pool_blocks, kv_heads, config.head_dim,
                                       arena.alloc<std::byte>(bytes));
  buffers.shared = model.blocks().front().allocate_forward(t, arena);
  buffers.last_delta = arena.mat<float>(r, config.hidden_size);
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
  check_hidden(model, plan, hidden);
  const int64_t t = plan.rows();
  if (t == 0) return;
  const ArenaScope scope(arena);
  const auto [at, shared, last, last_delta] =
      allocate_inference(model, t, plan.output_rows.size, arena);

  kernels::embedding_forward(ctx,
                             {.out = at.input, .table = model.embedding(), .ids = plan.tokens});
  Mat<const float> before;
  int64_t layer = 0;
  for (const Block& block : model.blocks()) {
    block.forward(ctx, {.plan = plan,
                        .pool = cache.layer(layer++),
                        .before = before,
                        .at = at,
                        .buffers = shared});
    before = at.middle;
  }
  if (plan.output_rows.empty()) return;
  kernels::gather_rows(ctx, {.to = last, .from = at.middle, .rows = plan.output_rows});
  kernels::gather_rows(ctx, {.to = last_delta, .from = shared.delta, .rows = plan.output_rows});
  kernels::rmsnorm_residual_forward(
      ctx, {.h = last,
            .y = hidden,
            .x = last,
            .delta = last_delta,
            .weight = model.final_norm(),
            .eps = model.config().rms_norm_eps,
            .numerics = kernels::numerics_class(ctx.device, model.compute_dtype())});
}

Activations transformer_forward_train(const Context& ctx, const Transformer& model,
                                      const BatchPlan& plan, ActMat hidden, Arena& arena) {
  const ProfilePhaseScope phase(ctx, "forward");
  check_hidden(model, plan, hidden);
  const int64_t t = plan.rows();
  const int64_t r = plan.output_rows.size;
  Activations result = allocate_activations(model, t, r, arena);

  const ArenaScope scope(arena);
  const auto [pool, shared, last_delta] =
      allocate_train(model, ctx.device, plan.attention.pool_blocks, t, r, arena);
  // Slots that no layer writes are multiplied all the same, so none may hold a NaN
  // pattern; every layer writes the same ones.
  kernels::kv_clear(ctx, {.pool = pool});
  kernels::embedding_forward(
      ctx, {.out = result.blocks[0].input, .table = model.embedding(), .ids = plan.tokens});
  Mat<const float> before;
  int64_t layer = 0;
  for (const Block& block : model.blocks()) {
    const BlockActivations& at = result.blocks[layer++];
    block.forward(ctx, {.plan = plan, .pool = pool, .before = before, .at = at, .buffers = shared});
    before = at.middle;
  }
  kernels::gather_rows(ctx, {.to = result.final_input, .from = before, .rows = plan.output_rows});
  kernels::gather_rows(ctx, {.to = last_delta, .from = shared.delta, .rows = plan.output_rows});
  kernels::rmsnorm_residual_forward(
      ctx, {.h = result.final_input,
            .y = hidden,
            .rstd = result.rstd_final,
            .x = result.final_input,
            .delta = last_delta,
            .weight = model.final_norm(),
            .eps = model.config().rms_norm_eps,
            .numerics = kernels::numerics_class(ctx.device, model.compute_dtype())});
  return result;
}

void measure_forward(const Transformer& model, const ForwardBatch& batch, Arena& arena) {
  measure_plan(batch, arena);
  const ArenaScope scope(arena);
  allocate_inference(model, batch.tokens.size(), batch.output_rows.size(), arena);
}

void measure_forward_train(const Transformer& model, const TrainBatch& batch, Arena& arena) {
  const int64_t blocks = measure_plan(batch, arena);
  const int64_t t = batch.tokens.size(), r = batch.output_rows.size();
  allocate_activations(model, t, r, arena);
  const ArenaScope scope(arena);
  allocate_train(model, arena.device(), blocks, t, r, arena);
}

void lm_head_forward(const Context& ctx, const Transformer& model, Mat<float> logits,
                     ConstActMat hidden) {
  const ProfileOpScope profile(ctx, "lm head", 0, 0);  // the product adds its own
  model.lm_head().forward(ctx, logits, hidden);
}

}  // namespace orrery::models
