// One layer of the decoder: attention and MLP, each behind a norm and added to the
// residual stream; its forward and its backward. A model is an embedding, a list of
// blocks, a final norm and a head (models/transformer.h). A block of another kind (with
// experts for its MLP, say) goes beside this one.
//
// Shapes: T rows (tokens of a batch), D hidden, F intermediate.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/buffer.h"
#include "core/context.h"
#include "core/extent.h"
#include "core/tensor.h"
#include "kernels/kv_pool.h"
#include "kernels/numerics.h"
#include "kernels/rope.h"
#include "models/batch_plan.h"
#include "models/config.h"
#include "models/linear.h"
#include "models/parameters.h"

namespace orrery::models {

/// What a block's forward computes on its way. Training keeps it for the backward, one
/// for each block; inference has one for all blocks, which each overwrites. Norms' and
/// SwiGLU's outputs are computed again in the backward: they are cheap, and a quarter
/// of the memory. What enters products or attention (ActMat) is of the model's compute
/// dtype.
struct BlockActivations {
  Mat<float> input;                  ///< [T, D] residual stream entering the block
  ActMat qkv;                        ///< [T, q + 2 kv] after bias, QK-norm and RoPE
  ActMat qk_raw;                     ///< [T, q + kv] before QK-norm; only with qk_norm
  ActMat attention;                  ///< [T, q]
  Mat<float> middle;                 ///< [T, D] residual stream after attention
  ActMat gate_up;                    ///< [T, 2 F]
  Mat<float> lse, rstd_q, rstd_k;    ///< [T, heads], [T, heads], [T, kv_heads]
  Vec<float> rstd_input, rstd_post;  ///< [T]
};

/// Owns no memory. Thread-safe but for pack().
class Block {
 public:
  /// parameters: the flat buffer that holds the values of `groups`; it and the memory
  /// of `rope` must outlive this. compute_dtype: of the products' operands.
  Block(const ModelConfig& config, const LayerGroups& groups, Vec<const float> parameters,
        DType compute_dtype, const kernels::RopeTable& rope);

  const Linear& qkv() const { return qkv_; }
  const Linear& o() const { return o_; }
  const Linear& gate_up() const { return gate_up_; }
  const Linear& down() const { return down_; }

  /// As Linear's, for the weights of all products.
  size_t packed_bytes(Device device) const;
  void pack(const Context& ctx, std::byte* memory);

  /// What forward() needs for T rows: activations that all blocks share, in which the
  /// residual stream is updated in place; or those that a block keeps.
  BlockActivations allocate_shared(int64_t t, Arena& arena) const;
  BlockActivations allocate_kept(int64_t t, Arena& arena) const;
  /// And what a forward's blocks hand from one to the next.
  struct ForwardBuffers {
    ActMat x, act;     ///< [T, D] a norm's output, [T, F] SwiGLU's
    Mat<float> delta;  ///< [T, D] what o, then down, adds to the residual stream
  };
  ForwardBuffers allocate_forward(int64_t t, Arena& arena) const;

  struct Forward {
    const BatchPlan& plan;
    const kernels::KvPool& pool;  ///< receives the rows' keys and values
    /// The `middle` of the block before: before + buffers.delta enters this one. Empty
    /// in the first block, whose at.input is there already.
    Mat<const float> before;
    const BlockActivations& at;
    const ForwardBuffers& buffers;
  };
  /// The block's output is at.middle + buffers.delta: the norm that follows adds them.
  void forward(const Context& ctx, const Forward& op) const;

  /// What backward() needs for T rows, to be shared by all blocks.
  struct BackwardBuffers {
    ActMat x, act, dact, dgate_up, dqkv, dattention;
    Mat<float> dx;  ///< [T, D] gradient of a norm's output
    /// [T, D] the residual stream's gradient as the operand of o's and down's products.
    /// Without memory where they take it as it is, in f32.
    ActMat drounded;
  };
  BackwardBuffers allocate_backward(int64_t t, Arena& arena) const;

  struct Backward {
    const BatchPlan& plan;  ///< of plan_training
    const BlockActivations& at;
    /// [T, D] in: the output's gradient; out: the input's. buffers.drounded, where it
    /// has memory, holds the same, rounded, in and out.
    Mat<float> dresidual;
    const BackwardBuffers& buffers;
    bool accumulate = true;  ///< to the parameters' gradients; else they are overwritten
  };
  /// Adds the gradients of the block's parameters to `gradients` (flat, in the table's
  /// layout), or writes them, each in row order, the products' in the plan's runs.
  void backward(const Context& ctx, const Backward& op, const FlatView& gradients) const;

 private:
  /// A norm's weight and its gradient's place.
  struct Norm {
    ParameterGroup group;
    Vec<const float> weight;
  };
  int64_t q_size() const { return heads_ * head_dim_; }
  int64_t kv_size() const { return kv_heads_ * head_dim_; }
  bool has_qk_norm() const { return !q_norm_.group.empty(); }
  DType dtype() const { return qkv_.dtype(); }
  kernels::NumericsClass numerics(const Context& ctx) const {
    return kernels::numerics_class(ctx.device, dtype());
  }
  /// The columns of queries, keys and values in rows of q, k, v.
  template <class Matrix>
  Matrix queries(const Matrix& qkv) const {
    return qkv.col_range(0, q_size());
  }
  template <class Matrix>
  Matrix keys(const Matrix& qkv) const {
    return qkv.col_range(q_size(), q_size() + kv_size());
  }
  template <class Matrix>
  Matrix values(const Matrix& qkv) const {
    return qkv.col_range(q_size() + kv_size(), q_size() + 2 * kv_size());
  }
  kernels::Rotation rotation(const BatchPlan& plan) const {
    return {.positions = plan.positions, .cos = cos_, .sin = sin_};
  }
  void attention_forward(const Context& ctx, const Forward& op) const;
  void attention_backward(const Context& ctx, const Backward& op, const FlatView& gradients) const;
  void mlp_backward(const Context& ctx, const Backward& op, const FlatView& gradients) const;

  int64_t hidden_, intermediate_, heads_, kv_heads_, head_dim_;
  float eps_, scale_;  // of the norms; of attention's scores
  Mat<const float> cos_, sin_;
  Norm input_norm_, q_norm_, k_norm_, post_norm_;
  Linear qkv_, o_, gate_up_, down_;
};

}  // namespace orrery::models
