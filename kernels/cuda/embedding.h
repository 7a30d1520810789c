// CUDA half of kernels/embedding.h; arguments are already checked.
#pragma once

#include "kernels/embedding.h"

namespace orrery::kernels::cuda {

void embedding_forward(const Context& ctx, const EmbeddingForward& op);
void embedding_backward(const Context& ctx, const EmbeddingBackward& op);

}  // namespace orrery::kernels::cuda
