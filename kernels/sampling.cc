#include "kernels/sampling.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cuda/sampling.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {

void sample_forward(const Context& ctx, const SampleForward& op) {
  constexpr const char* kOp = "sample_forward";
  const int64_t rows = op.logits.rows, vocab = op.logits.cols;
  require_positive(kOp, "vocabulary", vocab);
  if (vocab > kMaxSamplingVocab) {
    fail("{}: the vocabulary of {} is larger than {}", kOp, vocab, kMaxSamplingVocab);
  }
  require_mat(kOp, "logits", op.logits, rows, vocab);
  require_size(kOp, "ids", op.ids.size, rows);
  require_size(kOp, "params", op.params.size, rows);
  require_size(kOp, "uniform", op.uniform.size, rows);
  const ProfileOpScope profile(ctx, "sampling", 0, f32_bytes(op.logits.size()));
  dispatch<cpu::sample_forward, cuda::sample_forward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
