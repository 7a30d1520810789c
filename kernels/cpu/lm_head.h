// How the CPU cuts the LM head's rows (kernels/lm_head.h).
#pragma once

#include <cstdint>

#include "core/context.h"

namespace orrery::kernels::cpu {

struct LmHeadChunkRows {
  int64_t vocab = 0, rows = 0;
};
/// Chunks of whole register tiles, but for the last one, with logits of at most 72 MiB.
int64_t lm_head_chunk_rows(const Context& ctx, const LmHeadChunkRows& op);

}  // namespace orrery::kernels::cpu
