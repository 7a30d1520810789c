#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/numerics.h"
#include "kernels/rmsnorm.h"
#include "kernels/rows.h"
#include "models/transformer.h"

namespace orrery::models {

TransformerBackward::TransformerBackward(const Context& ctx, const Transformer& model,
                                         const BatchPlan& plan, const Activations& activations,
                                         Mat<const float> dhidden, const FlatView& gradients,
                                         bool accumulate, Mat<float> dembedding, Arena& arena)
    : ctx_(ctx),
      model_(model),
      plan_(plan),
      activations_(activations),
      dhidden_(dhidden),
      gradients_(gradients),
      accumulate_(accumulate),
      dresidual_(dembedding),
      arena_(arena),
      scope_(arena),
      blocks_left_(model.blocks().size()) {
  model.check_packed();
  ORRERY_CHECK(gradients.size() == model.table().flat_size(), "gradients of {}", gradients.size());
  ORRERY_CHECK(dembedding.rows == plan.rows() && dembedding.cols == model.config().hidden_size,
               "dembedding {} x {}", dembedding.rows, dembedding.cols);
}

std::optional<int64_t> TransformerBackward::next() {
  if (!begun_) {
    begun_ = true;
    final_norm_backward();
  } else if (blocks_left_ > 0) {
    --blocks_left_;
    model_.blocks()[blocks_left_].backward(ctx_,
                                           {.plan = plan_,
                                            .at = activations_.blocks[blocks_left_],
                                            .dresidual = dresidual_,
                                            .buffers = buffers_,
                                            .accumulate = accumulate_},
                                           gradients_);
  } else {
    return std::nullopt;
  }
  // The block's region, or the one behind the last block: final norm and head.
  const int64_t region = 1 + blocks_left_;
  if (!accumulate_) zero_gaps(ctx_, model_.table(), region, gradients_);
  return model_.table().regions()[region];
}

void TransformerBackward::final_norm_backward() {
  kernels::fill(ctx_, {.y = as_vec(dresidual_)});
  {
    const ArenaScope head(arena_);
    const Mat<float> dlast = arena_.mat<float>(dhidden_.rows, dhidden_.cols);
    kernels::fill(ctx_, {.y = as_vec(dlast)});
    kernels::rmsnorm_backward(
        ctx_, {.dx = dlast,
               .dweight = model_.table().final_norm().vec(gradients_),
               .dy = dhidden_,
               .x = activations_.final_input,
               .rstd = activations_.rstd_final,
               .weight = model_.final_norm(),
               .accumulate = true,
               .accumulate_dweight = accumulate_,
               .numerics = kernels::numerics_class(ctx_.device, model_.compute_dtype()),
               .run_ends = plan_.output_sum_runs});
    // In output order: a row may be named by several responses.
    kernels::scatter_add_rows(ctx_, {.to = dresidual_, .from = dlast, .rows = plan_.output_rows});
  }
  buffers_ = model_.blocks().front().allocate_backward(dresidual_.rows, arena_);
  if (buffers_.drounded.data != nullptr)
    kernels::round_rows(ctx_, {.to = buffers_.drounded, .from = dresidual_});
}

void zero_gaps(const Context& ctx, const ParameterTable& table, int64_t region,
               const FlatView& gradients) {
  for (const Extent& gap : table.gaps(region))
    kernels::fill(ctx, {.y = {gradients.at(gap.begin), gap.size()}});
}

void TransformerBackward::measure(const Transformer& model, const TrainBatch& batch, Arena& arena) {
  const ArenaScope scope(arena);
  {
    const ArenaScope head(arena);
    arena.mat<float>(batch.output_rows.size(), model.config().hidden_size);
  }
  model.blocks().front().allocate_backward(batch.tokens.size(), arena);
}

}  // namespace orrery::models
