// The two backends under one set of names.
#pragma once

#include "kernels/attention.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/bias.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/kv_pool.h"
#include "kernels/cuda/logprob.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/cuda/reductions.h"
#include "kernels/cuda/rmsnorm.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/swiglu.h"
#include "learners/cuda/token_loss.h"

namespace orrery::ops_check {

#define ORRERY_OPS(OP)                                 \
  OP(matmul_forward, MatmulForward)                    \
  OP(matmul_backward_input, MatmulBackwardInput)       \
  OP(matmul_backward_weight, MatmulBackwardWeight)     \
  OP(bias_backward, BiasBackward)                      \
  OP(attention_forward, AttentionForward)              \
  OP(attention_backward, AttentionBackward)            \
  OP(kv_write, KvWrite)                                \
  OP(rope_kv_write, RopeKvWrite)                       \
  OP(kv_copy, KvCopy)                                  \
  OP(kv_clear, KvClear)                                \
  OP(rmsnorm_forward, RmsnormForward)                  \
  OP(rmsnorm_residual_forward, RmsnormResidualForward) \
  OP(rmsnorm_backward, RmsnormBackward)                \
  OP(rope_backward, RopeBackward)                      \
  OP(swiglu_forward, SwigluForward)                    \
  OP(swiglu_backward, SwigluBackward)                  \
  OP(embedding_forward, EmbeddingForward)              \
  OP(embedding_backward, EmbeddingBackward)            \
  OP(copy_rows, CopyRows)                              \
  OP(round_rows, RoundRows)                            \
  OP(gather_rows, GatherRows)                          \
  OP(scatter_add_rows, ScatterAddRows)                 \
  OP(spread_rows, SpreadRows)                          \
  OP(logprob_forward, LogprobForward)                  \
  OP(logprob_backward, LogprobBackward)                \
  OP(sample_forward, SampleForward)                    \
  OP(fill, Fill)                                       \
  OP(nested_sum, NestedSum)                            \
  OP(tree_sum, TreeSum)                                \
  OP(checksum, Checksum)                               \
  OP(max_abs, MaxAbs)                                  \
  OP(adamw_step, AdamwStep)                            \
  OP(sum_squares_chunks, SumSquaresChunks)

/// The CPU with the bf16 products of a GPU. In f32 it is as any.
inline constexpr Device kCpuDevice{DeviceType::kCpu, 0, Bf16Sums::kDot16};

/// The product's ops, on the CPU.
struct Cpu {
#define ORRERY_OP(name, Op) \
  static auto name(const Context& ctx, const kernels::Op& op) { return kernels::name(ctx, op); }
  ORRERY_OPS(ORRERY_OP)
#undef ORRERY_OP
  template <class Loss>
  static void token_loss(const Context& ctx, const learners::TokenLossOp<Loss>& op) {
    learners::token_loss(ctx, op);
  }
  static kernels::PackedWeight pack_weight(const Context& ctx, const kernels::PackWeight& op) {
    return kernels::pack_weight(ctx, op);
  }
  static int64_t packed_bytes(int64_t n, int64_t k, DType dtype = DType::kF32) {
    return static_cast<int64_t>(kernels::packed_weight_bytes(kCpuDevice, dtype, n, k));
  }
};

struct Cuda {
#define ORRERY_OP(name, Op)                                     \
  static auto name(const Context& ctx, const kernels::Op& op) { \
    return kernels::cuda::name(ctx, op);                        \
  }
  ORRERY_OPS(ORRERY_OP)
#undef ORRERY_OP
  template <class Loss>
  static void token_loss(const Context& ctx, const learners::TokenLossOp<Loss>& op) {
    learners::cuda::token_loss(ctx, op);
  }
  static kernels::PackedWeight pack_weight(const Context& ctx, const kernels::PackWeight& op) {
    kernels::cuda::pack_weight(ctx, op);
    return {op.dtype, op.weight.rows, op.weight.cols, op.memory};
  }
  static int64_t packed_bytes(int64_t n, int64_t k, DType dtype = DType::kF32) {
    return static_cast<int64_t>(kernels::cuda::packed_weight_bytes({}, {dtype, n, k}));
  }
};

}  // namespace orrery::ops_check
