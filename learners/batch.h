// From trajectories to packed training batches.
//
// A *tree* is a prompt with some of its responses: the prompt's tokens are computed
// once for all of them, forward and backward. The mini-batch's trees are assigned to a
// fixed number of gradient shards; a shard's trees, in order, form *runs* of some rows,
// the least that a forward and backward may have; and the runs are walked, as many at a
// time as the token budget allows. Which tree is in which shard and run depends on the
// trees alone: not on ranks, budget or arrival (docs/numerics.md).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.h"
#include "core/span.h"
#include "kernels/attention.h"
#include "models/transformer.h"

namespace orrery::learners {

/// A response to learn from. Spans have one entry per response token and point into
/// memory of the caller.
struct Leaf {
  std::span<const int32_t> tokens;
  std::span<const uint8_t> loss_mask;
  std::span<const float> old_logprobs;  ///< empty for SFT
  std::span<const float> advantages;    ///< empty for SFT
  std::span<const float> is_weights;    ///< truncated importance weights; empty: 1
  /// old_logprobs were recorded with the learner's very weights and numerics (equal
  /// fingerprint and weight version), so recomputing them must give the same bits.
  bool exact = false;
  std::vector<float> ref_logprobs;  ///< filled by the learner when a reference is used
  float weight = 0;                 ///< aggregation_weight of each loss token
  uint64_t prompt_index = 0;        ///< for messages
  uint32_t sample_index = 0;

  int64_t loss_tokens() const;
};

struct Tree {
  std::span<const int32_t> prompt;  ///< at least one token
  std::vector<Leaf> leaves;

  /// Rows of a forward: the prompt, and every response token but its last.
  int64_t rows() const;
  /// Rows it costs to compute one response more.
  static int64_t leaf_rows(int64_t response_tokens) {
    return response_tokens > 0 ? response_tokens - 1 : 0;
  }
};

/// Cuts a prompt's leaves into trees of at most max_rows rows each (a single leaf may
/// exceed it), in order. The cut is part of the result's bits, so max_rows is a setting
/// of its own and not the micro-batch budget.
std::vector<Tree> make_trees(std::span<const int32_t> prompt, std::vector<Leaf> leaves,
                             int64_t max_rows);

/// Indices of the trees of each shard, rising: longest first to the least loaded shard,
/// ties to the lower index.
std::vector<std::vector<int64_t>> assign_shards(Span<const int64_t> rows, int64_t shards);

/// Trees packed into one forward and backward. Loss rows: one for each response token
/// whose loss_mask is set.
struct MicroBatch {
  std::vector<int32_t> tokens, positions;
  std::vector<kernels::AttentionSegment> segments;
  std::vector<int32_t> output_rows, targets;
  struct LossRow {
    Leaf* leaf;
    int32_t token;  ///< index in the response
  };
  std::vector<LossRow> loss_rows;  ///< whose logits the output rows give
  /// Where runs end in the tokens, and in the loss rows. Empty: all is one run.
  std::vector<int64_t> run_ends, loss_run_ends;

  models::TrainBatch view() const {
    return {tokens, positions, segments, output_rows, run_ends, loss_run_ends};
  }
};

/// Appends a tree to a micro-batch. It ends no run.
void append_tree(MicroBatch& batch, Tree& tree);

/// A run ends with the tree that brings it to this many rows or more. In f32 every tree
/// is one. In bf16 a gradient's sum over rows is made in blocks of 32, which begin anew
/// at each run: at 256 rows the ragged last block costs 6 % of the products, and no
/// more than 12, whereas larger runs would leave the token budget less to choose.
int64_t min_run_rows(DType compute_dtype);

/// Packs trees in order into micro-batches of whole runs of min_run_rows rows or more
/// each (the last one may have fewer): a new micro-batch starts when the next run would
/// exceed max_tokens. A run that exceeds it alone is a micro-batch by itself.
std::vector<MicroBatch> pack(std::span<Tree* const> trees, int64_t max_tokens,
                             int64_t min_run_rows);

}  // namespace orrery::learners
