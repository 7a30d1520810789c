#include "kernels/cuda/embedding.h"

#include "kernels/cuda/rows.h"

namespace orrery::kernels::cuda {

void embedding_forward(const Context& ctx, const EmbeddingForward& op) {
  gather_rows(ctx, {.to = op.out, .from = op.table, .rows = op.ids});
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& op) {
  const ScatterAddRows add{.to = op.dtable, .from = op.dout, .rows = op.ids};
  op.run_ends.empty() ? cuda::scatter_add_rows(ctx, add)
                      : cuda::scatter_add_runs(ctx, "embedding_backward", add, op.run_ends);
}

}  // namespace orrery::kernels::cuda
