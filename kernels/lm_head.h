// The LM head fused with log-prob, entropy and loss: logits of a chunk of rows become
// log-probs, the loss's gradient, dlogits, dhidden and dW before the next chunk is
// touched. A full [rows, vocab] array never exists.
#pragma once

#include <cstdint>
#include <optional>

#include "core/buffer.h"
#include "core/context.h"
#include "core/profile.h"
#include "core/span.h"
#include "core/tensor.h"
#include "kernels/matmul.h"

namespace orrery::kernels {

/// Log-probs and entropies of rows of hidden whose next token is `targets`, under
/// softmax(logits * inv_temperature). check_logprob_rows (kernels/logprob.h) says what
/// targets and temperatures must be.
struct LmHeadForward {
  ConstActMat hidden;                ///< [R, D], of the weight's element type
  PackedWeight weight;               ///< [vocab, D]
  Vec<const int32_t> targets;        ///< [R]
  Vec<const float> inv_temperature;  ///< [R]
  Vec<float> logprobs;               ///< [R]
  Vec<float> entropies{};            ///< [R] or empty
  /// As MatmulBackwardWeight's, for the head's dW: the runs of the R rows. Host memory,
  /// read by a walk until it is gone.
  Span<const int64_t> run_ends{};
};
void lm_head_logprob(const Context& ctx, const LmHeadForward& op, Arena& arena);

/// Rows [begin, begin + logprobs.size) of a walk.
struct LmHeadChunk {
  int64_t begin = 0;
  Vec<const float> logprobs, entropies;
  Vec<float> dlogp, dentropy;  ///< dL/dlogp, dL/dentropy: for the caller to set
};

/// The head's forward and backward in one walk over the rows:
///   while (const auto chunk = walk.next()) {
///     ...  from the chunk's logprobs and entropies its dlogp and dentropy
///     walk.backward(*chunk, dhidden, dw, accumulate);
///   }
/// What the loss makes of a chunk's log-probs is needed before its logits are gone, so
/// the caller stands between the two halves. The bits do not depend on how rows are cut
/// into chunks or walks.
class LmHeadWalk {
 public:
  /// op.logprobs and op.entropies, which must not be empty, are filled chunk by chunk.
  /// Temporaries come from `arena` and stay there until the walk is gone. The arena and
  /// the memory that op views must outlive it.
  LmHeadWalk(const Context& ctx, const LmHeadForward& op, Arena& arena);
  /// Logits, log-probs and entropies of the next rows; nothing when all rows are done.
  std::optional<LmHeadChunk> next();
  /// The backward of the chunk that next() gave: its rows of dhidden [R, D] are
  /// overwritten, dw [vocab, D] += (summed over rows). Without accumulate the first
  /// chunk overwrites dw; a walk over no rows leaves it as it is.
  void backward(const LmHeadChunk& chunk, Mat<float> dhidden, Mat<float> dw,
                bool accumulate = true);

 private:
  Context ctx_;
  ProfilePhaseScope phase_;
  LmHeadForward op_;
  ArenaScope scope_;
  Mat<float> logits_;
  ActMat dlogits_;  // the logits' memory in f32, a matrix of its own in bf16
  Vec<float> max_, log_sum_, dlogp_, dentropy_;
  int64_t next_ = 0;
};

/// Takes from `arena`, which measures, what a walk over `rows` rows takes at most, its
/// operands not counted; lm_head_logprob takes no more. `dtype`: the weight's.
void measure_lm_head(DType dtype, int64_t vocab, int64_t rows, Arena& arena);

/// Rows of logits alive at once on `device`, of `rows`, the weight being of `dtype`:
/// chunks of nearly equal size, for each walks through all of the weights.
int64_t lm_head_chunk_rows(Device device, int64_t vocab, int64_t rows, DType dtype = DType::kF32);

}  // namespace orrery::kernels
