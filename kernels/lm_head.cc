#include "kernels/lm_head.h"

#include <algorithm>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/logprob.h"

namespace orrery::kernels {
namespace {

constexpr int64_t kChunkBytes = int64_t{72} << 20;
constexpr int64_t kRowTile = 14;  // the matmul's register tile: whole tiles waste nothing

void check(const LmHeadRows& rows, const PackedWeight& w, std::span<float> logprobs,
           std::span<float> entropies) {
  const auto r = static_cast<size_t>(rows.hidden.rows);
  ORRERY_CHECK(rows.hidden.cols == w.k, "hidden has {} columns, the head {}", rows.hidden.cols,
               w.k);
  ORRERY_CHECK(rows.targets.size() == r && rows.inv_temperature.size() == r &&
                   logprobs.size() == r && (entropies.empty() || entropies.size() == r),
               "{} rows, {} targets, {} temperatures, {} log-probs", r, rows.targets.size(),
               rows.inv_temperature.size(), logprobs.size());
}

template <class T>
std::span<T> part(std::span<T> all, int64_t begin, int64_t count) {
  return all.empty() ? all : all.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
}

}  // namespace

int64_t lm_head_chunk_rows(int64_t vocab, int64_t rows) {
  const int64_t fit =
      kChunkBytes / static_cast<int64_t>(sizeof(float)) / std::max<int64_t>(vocab, 1);
  const int64_t most =
      std::max<int64_t>(std::min<int64_t>(fit, 512 * kRowTile) / kRowTile, 1);  // in tiles
  const int64_t tiles = (rows + kRowTile - 1) / kRowTile;
  const int64_t chunks = std::max<int64_t>((tiles + most - 1) / most, 1);
  return std::min((tiles + chunks - 1) / chunks * kRowTile, rows);
}

void lm_head_logprob(const Context& ctx, std::span<float> logprobs, std::span<float> entropies,
                     const LmHeadRows& rows, const PackedWeight& w, Arena& arena) {
  const PhaseScope phase(ctx, "head and loss");
  check(rows, w, logprobs, entropies);
  const ArenaScope scope(arena);
  const int64_t chunk = lm_head_chunk_rows(w.n, rows.hidden.rows);
  const Mat<float> logits = arena.mat<float>(chunk, w.n);
  for (int64_t begin = 0; begin < rows.hidden.rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows.hidden.rows - begin);
    const Mat<float> z = logits.row_range(0, count);
    matmul_forward(ctx, z, rows.hidden.row_range(begin, begin + count), w);
    logprob_forward(ctx, part(logprobs, begin, count), part(entropies, begin, count), {}, z,
                    part(rows.targets, begin, count), part(rows.inv_temperature, begin, count));
  }
}

void lm_head_forward_backward(const Context& ctx, std::span<float> logprobs,
                              std::span<float> entropies, Mat<float> dhidden, Mat<float> dw,
                              const LmHeadRows& rows, const PackedWeight& w, const TokenLoss& loss,
                              Arena& arena) {
  const PhaseScope phase(ctx, "head and loss");
  check(rows, w, logprobs, entropies);
  ORRERY_CHECK(!entropies.empty() || rows.hidden.rows == 0, "the backward needs entropies");
  const ArenaScope scope(arena);
  const int64_t chunk = lm_head_chunk_rows(w.n, rows.hidden.rows);
  const Mat<float> logits = arena.mat<float>(chunk, w.n);
  const std::span<float> lse = arena.span<float>(chunk), dlogp = arena.span<float>(chunk),
                         dentropy = arena.span<float>(chunk);
  for (int64_t begin = 0; begin < rows.hidden.rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows.hidden.rows - begin);
    const Mat<float> z = logits.row_range(0, count);
    const Mat<const float> hidden = rows.hidden.row_range(begin, begin + count);
    const auto targets = part(rows.targets, begin, count);
    const auto inv_temperature = part(rows.inv_temperature, begin, count);
    const auto logp = part(logprobs, begin, count), entropy = part(entropies, begin, count);
    matmul_forward(ctx, z, hidden, w);
    logprob_forward(ctx, logp, entropy, part(lse, 0, count), z, targets, inv_temperature);
    loss(begin, logp, entropy, part(dlogp, 0, count), part(dentropy, 0, count));
    logprob_backward(ctx, z, targets, part(lse, 0, count), entropy, part(dlogp, 0, count),
                     part(dentropy, 0, count), inv_temperature);
    matmul_backward_input(ctx, dhidden.row_range(begin, begin + count), z, w, /*accumulate=*/false,
                          arena);
    matmul_backward_weight(ctx, dw, z, hidden, arena);
  }
}

}  // namespace orrery::kernels
