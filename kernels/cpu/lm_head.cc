#include "kernels/cpu/lm_head.h"

#include <algorithm>

#include "kernels/cpu/pairs.h"

namespace orrery::kernels::cpu {
namespace {

constexpr int64_t kChunkBytes = int64_t{72} << 20;
constexpr int64_t kRowTile = 14;  // the matmul's register tile: whole tiles waste nothing

}  // namespace

int64_t lm_head_chunk_rows(const Context& /*ctx*/, const LmHeadChunkRows& op) {
  const bool bf16 = op.dtype == DType::kBF16;
  const int64_t tile = bf16 ? kPairsBlock : kRowTile;
  // In bf16 the gradients have a matrix of their own.
  const int64_t element = dtype_bytes(DType::kF32) + (bf16 ? dtype_bytes(DType::kBF16) : 0);
  const int64_t fit = kChunkBytes / element / std::max<int64_t>(op.vocab, 1);
  const int64_t most = std::max<int64_t>(std::min<int64_t>(fit, 512 * tile) / tile, 1);  // in tiles
  const int64_t tiles = (op.rows + tile - 1) / tile;
  const int64_t chunks = std::max<int64_t>((tiles + most - 1) / most, 1);
  // In bf16 a chunk ends with a block of a run, up to a block too early: one block more
  // than an even share keeps that from making one chunk more, a short one.
  const int64_t even = (tiles + chunks - 1) / chunks + (bf16 && chunks > 1 ? 1 : 0);
  return std::min(std::min(even, most) * tile, op.rows);
}

}  // namespace orrery::kernels::cpu
