// The decoder: an embedding, a list of blocks (models/block.h), a final norm, a head;
// its weights, and its three uses of one forward: prefill and decode over paged KV, and
// training with an explicit backward. All three run the same ops on the same packed
// weights, so a token's hidden state has the same bits in each (docs/numerics.md).
//
// Shapes: T rows (tokens of a batch), D hidden, R rows whose logits are wanted.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "core/error.h"
#include "core/extent.h"
#include "core/span.h"
#include "kernels/attention.h"
#include "kernels/rope.h"
#include "models/batch_plan.h"
#include "models/block.h"
#include "models/config.h"
#include "models/kv_cache.h"
#include "models/linear.h"
#include "models/parameters.h"

namespace orrery::models {

/// A model's parameters (float32, flat) and their packed form: one version at a time.
/// The flat buffer may be written by its owner (optimizer, weight channel, loader),
/// which makes the model stale until pack(). A forward or backward of a stale model is
/// a broken invariant: norms and embedding would be new, matrices old. Forward calls
/// are const and may share one Transformer, but not while it is written or packed.
class Transformer {
 public:
  /// compute_dtype: of what enters products and attention, weights and activations:
  /// kF32 or kBF16. The residual stream and sums are f32.
  /// max_positions: longest sequence that will be run (0: the config's). It sizes the
  /// RoPE table, and config().max_position_embeddings is at most that. module: which of
  /// the job's it is.
  Transformer(const ModelConfig& config, Device device, DType compute_dtype,
              int64_t max_positions = 0, const Module& module = kPolicy);

  const ModelConfig& config() const { return config_; }
  const ParameterTable& table() const { return table_; }
  DType compute_dtype() const { return compute_dtype_; }
  Vec<const float> parameters() const { return parameters_.vec<const float>(); }
  /// To be written at once: the model is stale from here on, until pack().
  Vec<float> write_parameters() {
    stale_ = true;
    return parameters_.vec<float>();
  }

  /// As write_parameters(), for a write that leaves every bit as it is (what is
  /// received where the same weights are): the model does not become stale.
  Vec<float> rewrite_parameters() { return parameters_.vec<float>(); }

  /// Packs the weights for the products; once after every write_parameters().
  void pack(const Context& ctx);
  bool is_stale() const { return stale_; }
  /// Throws for a stale model.
  void check_packed() const { ORRERY_CHECK(!stale_, "weights were written and not packed"); }

  const Array<Block>& blocks() const { return blocks_; }
  Mat<const float> embedding() const { return table_.embedding().mat(parameters()); }
  Vec<const float> final_norm() const { return table_.final_norm().vec(parameters()); }
  /// Its weight is the embedding when they are tied.
  const Linear& lm_head() const { return lm_head_; }
  const kernels::RopeTable& rope() const { return rope_; }

  size_t memory_bytes() const { return parameters_.bytes() + packed_.bytes(); }

 private:
  ModelConfig config_;
  ParameterTable table_;
  DType compute_dtype_;
  Buffer parameters_;
  Buffer packed_;
  bool stale_ = true;
  kernels::RopeTable rope_;
  Array<Block> blocks_;
  Linear lm_head_;
};

/// Writes the rows' keys and values into the cache and hidden [R, D] = final norm of
/// the output rows, of the model's compute dtype. The plan was made for this model and
/// cache. Temporaries come from `arena` and are released.
void transformer_forward(const Context& ctx, const Transformer& model, const BatchPlan& plan,
                         const KvCache& cache, ActMat hidden, Arena& arena);

/// Takes from `arena`, which measures, what plan_forward and transformer_forward take
/// for the batch. What the plan takes is not released.
void measure_forward(const Transformer& model, const ForwardBatch& batch, Arena& arena);

/// logits [R, vocab] = hidden [R, D] W^T.
void lm_head_forward(const Context& ctx, const Transformer& model, Mat<float> logits,
                     ConstActMat hidden);

/// What the forward keeps for the backward. Its memory is in the arena it was made
/// from.
struct Activations {
  Array<BlockActivations> blocks;
  Mat<float> final_input;  ///< [R, D] output rows before the final norm
  Vec<float> rstd_final;   ///< [R]
};

/// Training forward: as transformer_forward for the same tokens, same bits. `plan` is
/// of plan_training. Activations are taken from `arena` and live until the caller
/// releases it (after the backward).
Activations transformer_forward_train(const Context& ctx, const Transformer& model,
                                      const BatchPlan& plan, ActMat hidden, Arena& arena);

/// Takes from `arena`, which measures, what plan_training and transformer_forward_train
/// take for the batch. What the plan and the activations take is not released.
void measure_forward_train(const Transformer& model, const TrainBatch& batch, Arena& arena);

/// The backward of one batch, a block at a time: gradients of a loss given dhidden
/// [R, D]. They are added into the flat `gradients` (layout of model.table()) in order
/// of the rows, so two batches in a row give the bits of one batch holding both (in
/// bf16 where the batches are cut between runs). Without accumulate they are written
/// there, with the bits of adding to zeros, and the gaps between them are zeroed; but
/// for embedding and head, which are the caller's.
/// dembedding [T, D] receives the gradient of the embedding rows, which the caller adds
/// by embedding_backward after the head's part of tied weights is whole
/// (learners/gradient.h).
class TransformerBackward {
 public:
  /// Temporaries come from `arena` and stay there until this is gone. All arguments
  /// must outlive it.
  TransformerBackward(const Context& ctx, const Transformer& model, const BatchPlan& plan,
                      const Activations& activations, Mat<const float> dhidden,
                      const FlatView& gradients, bool accumulate, Mat<float> dembedding,
                      Arena& arena);
  /// One step down: the final norm, then the blocks from the last to the first. Gives
  /// the begin of the one of table().regions() that is now whole; with the first block
  /// that is everything but the embedding. Nothing: that was done already.
  std::optional<int64_t> next();

  /// Takes from `arena`, which measures, what the backward of the batch takes, and
  /// releases it.
  static void measure(const Transformer& model, const TrainBatch& batch, Arena& arena);

 private:
  void final_norm_backward();

  Context ctx_;
  const Transformer& model_;
  const BatchPlan& plan_;
  const Activations& activations_;
  Mat<const float> dhidden_;
  FlatView gradients_;
  bool accumulate_;
  Mat<float> dresidual_;  // carried down to the embedding
  Arena& arena_;
  ArenaScope scope_;
  bool begun_ = false;
  int64_t blocks_left_;
  Block::BackwardBuffers buffers_;
};

/// Zeroes the gaps in a region of a gradient that is written group by group.
void zero_gaps(const Context& ctx, const ParameterTable& table, int64_t region,
               const FlatView& gradients);

/// Floating-point operations of one forward over T tokens (2 per multiply-add): matmuls
/// (without the head), and attention in the causal convention (half of the full
/// square). Backward counts twice this; recomputation is not counted.
struct ForwardFlops {
  double matmul = 0, attention_causal = 0, head = 0;
};
ForwardFlops forward_flops(const ModelConfig& config,
                           Span<const kernels::AttentionSegment> segments, int64_t output_rows);

}  // namespace orrery::models
