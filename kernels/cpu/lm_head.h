// How the CPU cuts the LM head's rows (kernels/lm_head.h).
#pragma once

#include <cstdint>

#include "core/context.h"
#include "kernels/device_sizes.h"

namespace orrery::kernels::cpu {

/// Chunks of whole register tiles, but for the last one, with logits of at most 72 MiB.
int64_t lm_head_chunk_rows(const Context& ctx, const LmHeadChunkRows& op);

}  // namespace orrery::kernels::cpu
