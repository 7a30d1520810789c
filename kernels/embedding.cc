#include "kernels/embedding.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cuda/embedding.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {

void embedding_forward(const Context& ctx, const EmbeddingForward& op) {
  constexpr const char* kOp = "embedding_forward";
  require_mat(kOp, "out", op.out, op.ids.size, op.table.cols);
  require_mat(kOp, "table", op.table, op.table.rows, op.table.cols);
  require_vec(kOp, "ids", op.ids, op.out.rows);
  const ProfileOpScope profile(ctx, "embedding", 0, f32_bytes(2 * op.out.size()));
  dispatch<cpu::embedding_forward, cuda::embedding_forward>(ctx, kOp, op);
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& op) {
  constexpr const char* kOp = "embedding_backward";
  require_mat(kOp, "dout", op.dout, op.ids.size, op.dtable.cols);
  require_mat(kOp, "dtable", op.dtable, op.dtable.rows, op.dtable.cols);
  require_vec(kOp, "ids", op.ids, op.dout.rows);
  require_runs(kOp, op.run_ends, op.dout.rows);
  const ProfileOpScope profile(ctx, "embedding backward", 0, f32_bytes(3 * op.dout.size()));
  dispatch<cpu::embedding_backward, cuda::embedding_backward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
