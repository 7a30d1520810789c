#include "models/batch_plan.h"

#include <vector>

#include "core/error.h"
#include "core/transfer.h"
#include "kernels/numerics.h"
#include "models/transformer.h"

namespace orrery::models {
namespace {

kernels::AttentionShape attention_shape(const ModelConfig& config) {
  return {config.num_attention_heads, config.num_key_value_heads, config.head_dim};
}

void check_rows(const Transformer& model, Span<const int32_t> tokens, Span<const int32_t> positions,
                Span<const int32_t> output_rows) {
  ORRERY_CHECK(tokens.size() == positions.size(), "{} tokens, {} positions", tokens.size(),
               positions.size());
  const int64_t vocab = model.config().vocab_size, context = model.rope().cos.rows;
  for (int64_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      fail(
          "embedding_forward: token {} has id {}, outside the vocabulary of {}; "
          "the tokenizer and the model differ",
          i, tokens[i], vocab);
    }
    if (positions[i] < 0 || positions[i] >= context) {
      fail(
          "rope_kv_write: token {} is at position {}, outside the table of {}; "
          "the sequence is longer than the model's context",
          i, positions[i], context);
    }
  }
  for (const int32_t row : output_rows) {
    ORRERY_CHECK(row >= 0 && row < tokens.size(), "output row {} of {}", row, tokens.size());
  }
}

void check_run_ends(Span<const int64_t> run_ends, int64_t rows) {
  int64_t last = 0;
  for (const int64_t end : run_ends) {
    ORRERY_CHECK(end >= last && end <= rows, "a run of rows ends at {} after {}, of {}", end, last,
                 rows);
    last = end;
  }
  ORRERY_CHECK(run_ends.empty() || last == rows, "the last run of {} rows ends at {}", rows, last);
}

/// Blocks for one layer of a training batch, and what is copied between them.
struct TrainBlocks {
  int32_t count = 0;
  Array<std::vector<int32_t>> tables;
  Array<kernels::KvSegment> segments;
  Array<kernels::BlockCopy> copies;
};

TrainBlocks assign_blocks(Span<const kernels::AttentionSegment> segments) {
  TrainBlocks blocks;
  const int64_t block = KvCache::block_tokens();
  for (const kernels::AttentionSegment& s : segments) {
    std::vector<int32_t> table;
    const int64_t shared = s.position / block;
    const int64_t partial = s.position % block;
    if (s.parent >= 0) {
      const std::vector<int32_t>& parent = blocks.tables[s.parent];
      table.assign(parent.begin(), parent.begin() + shared);
      if (partial > 0) blocks.copies.push_back({parent[shared], blocks.count, partial});
    } else {
      ORRERY_CHECK(s.position == 0, "a segment without a parent starts at position {}", s.position);
    }
    const int64_t tiles = (s.position + s.rows + block - 1) / block;
    while (std::ssize(table) < tiles) table.push_back(blocks.count++);
    blocks.tables.push_back(std::move(table));
  }
  for (int64_t i = 0; i < segments.size(); ++i) {
    blocks.segments.push_back(
        {segments[i].row_begin, segments[i].rows, segments[i].position, blocks.tables[i]});
  }
  return blocks;
}

/// Of the tokens, their positions and the output rows, in the order of the plan.
void measure_rows(int64_t rows, int64_t output_rows, Arena& arena) {
  arena.alloc<int32_t>(rows);
  arena.alloc<int32_t>(rows);
  arena.alloc<int32_t>(output_rows);
}

}  // namespace

BatchPlan plan_forward(const Context& ctx, const Transformer& model, const ForwardBatch& batch,
                       const KvCache& cache, Arena& arena) {
  check_rows(model, batch.tokens, batch.positions, batch.output_rows);
  BatchPlan plan;
  plan.tokens = upload_into(ctx, arena, batch.tokens);
  plan.positions = upload_into(ctx, arena, batch.positions);
  plan.output_rows = upload_into(ctx, arena, batch.output_rows);
  plan.attention = kernels::make_attention_plan(ctx, attention_shape(model.config()), plan.rows(),
                                                cache.blocks(), batch.segments, arena);
  return plan;
}

BatchPlan plan_training(const Context& ctx, const Transformer& model, const TrainBatch& batch,
                        Arena& arena) {
  check_rows(model, batch.tokens, batch.positions, batch.output_rows);
  check_run_ends(batch.run_ends, batch.tokens.size());
  check_run_ends(batch.output_run_ends, batch.output_rows.size());
  const kernels::AttentionShape shape = attention_shape(model.config());
  BatchPlan plan;
  const auto copy = [](Span<const int64_t> ends) {
    return Array<int64_t>(ends.begin(), ends.end());
  };
  plan.run_ends = copy(batch.run_ends);
  if (kernels::numerics_class(ctx.device, model.compute_dtype()) ==
      kernels::NumericsClass::kDot16) {
    // All rows are one run where there are no others: its sum is from 0, too.
    const auto or_one = [&](Span<const int64_t> ends, int64_t rows) {
      return ends.empty() && rows > 0 ? Array<int64_t>(1, rows) : copy(ends);
    };
    plan.sum_runs = or_one(batch.run_ends, batch.tokens.size());
    plan.output_sum_runs = or_one(batch.output_run_ends, batch.output_rows.size());
  }
  plan.tokens = upload_into(ctx, arena, batch.tokens);
  plan.positions = upload_into(ctx, arena, batch.positions);
  plan.output_rows = upload_into(ctx, arena, batch.output_rows);
  // Before the blocks, which lean on what it checks.
  plan.backward =
      kernels::make_attention_backward_plan(ctx, shape, plan.rows(), batch.segments, arena);
  const TrainBlocks blocks = assign_blocks(batch.segments);
  plan.attention =
      kernels::make_attention_plan(ctx, shape, plan.rows(), blocks.count, blocks.segments, arena);
  plan.copies = kernels::make_copy_plan(ctx, blocks.count, blocks.copies, arena);
  return plan;
}

void measure_plan(const ForwardBatch& batch, Arena& arena) {
  measure_rows(batch.tokens.size(), batch.output_rows.size(), arena);
  kernels::measure_attention_plan(batch.segments, arena);
}

int64_t measure_plan(const TrainBatch& batch, Arena& arena) {
  measure_rows(batch.tokens.size(), batch.output_rows.size(), arena);
  arena.alloc<kernels::AttentionSegment>(batch.segments.size());
  const TrainBlocks blocks = assign_blocks(batch.segments);
  kernels::measure_attention_plan(blocks.segments, arena);
  arena.alloc<kernels::BlockCopy>(blocks.copies.size());
  return blocks.count;
}

}  // namespace orrery::models
