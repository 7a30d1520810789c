#include "kernels/cpu/lm_head.h"

#include <algorithm>

namespace orrery::kernels::cpu {
namespace {

constexpr int64_t kChunkBytes = int64_t{72} << 20;
constexpr int64_t kRowTile = 14;  // the matmul's register tile: whole tiles waste nothing

}  // namespace

int64_t lm_head_chunk_rows(const Context& /*ctx*/, const LmHeadChunkRows& op) {
  const int64_t fit = kChunkBytes / int64_t{sizeof(float)} / std::max<int64_t>(op.vocab, 1);
  const int64_t most =
      std::max<int64_t>(std::min<int64_t>(fit, 512 * kRowTile) / kRowTile, 1);  // in tiles
  const int64_t tiles = (op.rows + kRowTile - 1) / kRowTile;
  const int64_t chunks = std::max<int64_t>((tiles + most - 1) / most, 1);
  return std::min((tiles + chunks - 1) / chunks * kRowTile, op.rows);
}

}  // namespace orrery::kernels::cpu
