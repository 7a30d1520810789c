// The decoder: weights, and its three uses of one forward: prefill and decode over
// paged KV, and training with an explicit backward. All three run the same ops on the
// same packed weights, so a token's hidden state has the same bits in each
// (docs/numerics.md).
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
#include "kernels/matmul.h"
#include "models/batch_plan.h"
#include "models/config.h"
#include "models/kv_cache.h"
#include "models/parameters.h"

namespace orrery::models {

/// A model's parameters (float32, flat) and their packed form: one version at a time.
/// The flat buffer may be written by its owner (optimizer, weight channel, loader),
/// which makes the model stale until pack(). A forward or backward of a stale model is
/// a broken invariant: norms and embedding would be new, matrices old. Forward calls
/// are const and may share one Transformer, but not while it is written or packed.
class Transformer {
 public:
  /// compute_dtype: kF32, or kBF16 to round the matrices that enter products to bf16.
  /// max_positions: longest sequence that will be run (0: the config's). It sizes the
  /// RoPE table, and config().max_position_embeddings is at most that. module: which of
  /// the job's it is.
  Transformer(const ModelConfig& config, Device device, DType compute_dtype,
              int64_t max_positions = 0, const Module& module = kPolicy);

  const ModelConfig& config() const { return config_; }
  const ParameterTable& table() const { return table_; }
  DType compute_dtype() const { return compute_dtype_; }
  /// Of what the layers hand on to products and attention. The residual stream and sums
  /// are float32.
  static DType activation_dtype() { return DType::kF32; }
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

  struct Layer {
    /// Those that the model has none of are empty.
    Vec<const float> input_norm, post_norm, qkv_bias, q_norm, k_norm;
    kernels::PackedWeight qkv, o, gate_up, down;
  };
  const Layer& layer(int64_t index) const { return layers_[index]; }
  Mat<const float> embedding() const;
  Vec<const float> final_norm() const;
  const kernels::PackedWeight& lm_head() const { return lm_head_; }
  const kernels::RopeTable& rope() const { return rope_; }

  size_t memory_bytes() const { return parameters_.bytes() + packed_.bytes(); }

 private:
  ModelConfig config_;
  ParameterTable table_;
  DType compute_dtype_;
  Buffer parameters_;
  Buffer packed_;
  bool stale_ = true;
  Array<Layer> layers_;
  kernels::PackedWeight lm_head_;
  kernels::RopeTable rope_;
};

/// Writes the rows' keys and values into the cache and hidden [R, D] = final norm of
/// the output rows. The plan was made for this model and cache. Temporaries come from
/// `arena` and are released.
void transformer_forward(const Context& ctx, const Transformer& model, const BatchPlan& plan,
                         const KvCache& cache, ActMat hidden, Arena& arena);

/// Takes from `arena`, which measures, what plan_forward and transformer_forward take
/// for the batch. What the plan takes is not released.
void measure_forward(const Transformer& model, const ForwardBatch& batch, Arena& arena);

/// logits [R, vocab] = hidden [R, D] W^T.
void lm_head_forward(const Context& ctx, const Transformer& model, Mat<float> logits,
                     ConstActMat hidden);

/// What the forward keeps for the backward. Its memory is in the arena it was made
/// from. Norms' and SwiGLU's outputs are computed again in the backward: they are
/// cheap, and a quarter of the memory.
struct Activations {
  struct Layer {
    Mat<float> input;                  ///< [T, D] residual stream entering the layer
    ActMat qkv;                        ///< [T, q + 2 kv] after bias, QK-norm and RoPE
    ActMat qk_raw;                     ///< [T, q + kv] before QK-norm; only with qk_norm
    ActMat attention;                  ///< [T, q]
    Mat<float> middle;                 ///< [T, D] residual stream after attention
    ActMat gate_up;                    ///< [T, 2 F]
    Mat<float> lse, rstd_q, rstd_k;    ///< [T, heads], [T, heads], [T, kv_heads]
    Vec<float> rstd_input, rstd_post;  ///< [T]
  };
  Array<Layer> layers;
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

/// The backward of one batch, a layer at a time: gradients of a loss given dhidden
/// [R, D]. They are added into the flat `gradients` (layout of model.table()) in chain
/// order over rows, so two batches in a row give the bits of one batch holding both.
/// dembedding [T, D] receives the gradient of the embedding rows, which the caller adds
/// by embedding_backward after the head's part of tied weights is whole
/// (learners/gradient.h).
class TransformerBackward {
 public:
  /// Temporaries come from `arena` and stay there until this is gone. All arguments
  /// must outlive it.
  TransformerBackward(const Context& ctx, const Transformer& model, const BatchPlan& plan,
                      const Activations& activations, ConstActMat dhidden,
                      const FlatView& gradients, Mat<float> dembedding, Arena& arena);
  /// One step down: the final norm, then the layers from the last to the first. Gives
  /// the begin of the one of table().regions() that is now whole; with the first layer
  /// that is everything but the embedding. Nothing: that was done already.
  std::optional<int64_t> next();

  /// Takes from `arena`, which measures, what the backward of the batch takes, and
  /// releases it.
  static void measure(const Transformer& model, const TrainBatch& batch, Arena& arena);

 private:
  /// Of one layer.
  struct Buffers {
    ActMat x, dx, act, dact, dgate_up, dqkv, dattention;
  };
  static Buffers allocate(const ModelConfig& config, int64_t t, Arena& arena);
  void final_norm_backward();
  void layer_backward(int64_t index);
  Mat<float> grad(int64_t offset, int64_t rows, int64_t cols) const;
  Vec<float> grad_vector(int64_t offset, int64_t size) const;

  Context ctx_;
  const Transformer& model_;
  const BatchPlan& plan_;
  const Activations& activations_;
  ConstActMat dhidden_;
  FlatView gradients_;
  Mat<float> dresidual_;  // carried down to the embedding
  Arena& arena_;
  ArenaScope scope_;
  bool begun_ = false;
  int64_t layers_left_;
  ActMat x_, dx_, act_, dact_, dgate_up_, dqkv_, dattention_;  // of Buffers
};

/// Floating-point operations of one forward over T tokens (2 per multiply-add): matmuls
/// (without the head), and attention in the causal convention (half of the full
/// square). Backward counts twice this; recomputation is not counted.
struct ForwardFlops {
  double matmul = 0, attention_causal = 0, head = 0;
};
ForwardFlops forward_flops(const ModelConfig& config,
                           Span<const kernels::AttentionSegment> segments, int64_t output_rows);

}  // namespace orrery::models
