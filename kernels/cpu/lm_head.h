// How the CPU cuts the LM head's rows (kernels/lm_head.h).
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/dtype.h"

namespace orrery::kernels::cpu {

struct LmHeadChunkRows {
  int64_t vocab = 0, rows = 0;
  DType dtype = DType::kF32;  ///< of the weight
};
/// Chunks of whole register tiles or, in bf16, whole blocks of dW, but for the last
/// one, with at most 72 MiB of logits and their gradients, and at least a tile or
/// block.
int64_t lm_head_chunk_rows(const Context& ctx, const LmHeadChunkRows& op);

}  // namespace orrery::kernels::cpu
