#include "kernels/cuda/embedding.h"

#include "kernels/cuda/rows.h"

namespace orrery::kernels::cuda {

void embedding_forward(const Context& ctx, const EmbeddingForward& op) {
  gather_rows(ctx, {.to = op.out, .from = op.table, .rows = op.ids});
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& op) {
  scatter_add_rows(ctx, {.to = op.dtable, .from = op.dout, .rows = op.ids});
}

}  // namespace orrery::kernels::cuda
