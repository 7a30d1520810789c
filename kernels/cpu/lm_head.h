// How the CPU cuts the LM head's rows (kernels/lm_head.h).
#pragma once

#include <cstdint>

#include "core/context.h"
#include "kernels/device_sizes.h"

namespace orrery::kernels::cpu {

/// Chunks of whole register tiles or, in bf16, whole blocks of dW, but for the last
/// one, with at most 72 MiB of logits and their gradients, and at least a tile or
/// block.
int64_t lm_head_chunk_rows(const Context& ctx, const LmHeadChunkRows& op);

}  // namespace orrery::kernels::cpu
