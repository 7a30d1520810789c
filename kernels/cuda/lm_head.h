// How a CUDA device cuts the LM head's rows (kernels/lm_head.h).
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/context.h"
#include "kernels/device_sizes.h"

namespace orrery::kernels::cuda {

/// Chunks of whole tiles of a product, but for the last one, with logits of at most
/// 512 MiB.
inline int64_t lm_head_chunk_rows(const Context& /*ctx*/, const LmHeadChunkRows& op) {
  constexpr int64_t kChunkBytes = int64_t{512} << 20, kRowTile = 128;
  const int64_t fit = kChunkBytes / int64_t{sizeof(float)} / std::max<int64_t>(op.vocab, 1);
  const int64_t most = std::max<int64_t>(fit / kRowTile, 1);  // in tiles
  const int64_t tiles = (op.rows + kRowTile - 1) / kRowTile;
  const int64_t chunks = std::max<int64_t>((tiles + most - 1) / most, 1);
  return std::min((tiles + chunks - 1) / chunks * kRowTile, op.rows);
}

}  // namespace orrery::kernels::cuda
