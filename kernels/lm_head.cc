#include "kernels/lm_head.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/logprob.h"

namespace orrery::kernels {
namespace {

constexpr int64_t kChunkBytes = int64_t{72} << 20;
constexpr int64_t kRowTile = 14;  // the matmul's register tile: whole tiles waste nothing

void check(const LmHeadRows& rows, const PackedWeight& w, Span<float> logprobs,
           Span<float> entropies) {
  const int64_t r = rows.hidden.rows;
  ORRERY_CHECK(rows.hidden.cols == w.k, "hidden has {} columns, the head {}", rows.hidden.cols,
               w.k);
  ORRERY_CHECK(rows.targets.size() == r && rows.inv_temperature.size() == r &&
                   logprobs.size() == r && (entropies.empty() || entropies.size() == r),
               "{} rows, {} targets, {} temperatures, {} log-probs", r, rows.targets.size(),
               rows.inv_temperature.size(), logprobs.size());
}

template <class T>
Span<T> part(Span<T> all, int64_t begin, int64_t count) {
  return all.empty() ? all : all.subspan(begin, count);
}

}  // namespace

int64_t lm_head_chunk_rows(int64_t vocab, int64_t rows) {
  const int64_t fit = kChunkBytes / int64_t{sizeof(float)} / std::max<int64_t>(vocab, 1);
  const int64_t most =
      std::max<int64_t>(std::min<int64_t>(fit, 512 * kRowTile) / kRowTile, 1);  // in tiles
  const int64_t tiles = (rows + kRowTile - 1) / kRowTile;
  const int64_t chunks = std::max<int64_t>((tiles + most - 1) / most, 1);
  return std::min((tiles + chunks - 1) / chunks * kRowTile, rows);
}

void lm_head_logprob(const Context& ctx, Span<float> logprobs, Span<float> entropies,
                     const LmHeadRows& rows, const PackedWeight& w, Arena& arena) {
  const ProfilePhaseScope phase(ctx, "head and loss");
  check(rows, w, logprobs, entropies);
  const ArenaScope scope(arena);
  const int64_t chunk = lm_head_chunk_rows(w.n, rows.hidden.rows);
  const Mat<float> logits = arena.mat<float>(chunk, w.n);
  for (int64_t begin = 0; begin < rows.hidden.rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows.hidden.rows - begin);
    const Mat<float> z = logits.row_range(0, count);
    matmul_forward(ctx, {.y = z, .x = rows.hidden.row_range(begin, begin + count), .weight = w});
    logprob_forward(ctx, part(logprobs, begin, count), part(entropies, begin, count), {}, z,
                    part(rows.targets, begin, count), part(rows.inv_temperature, begin, count));
  }
}

LmHeadWalk::LmHeadWalk(const Context& ctx, const LmHeadRows& rows, const PackedWeight& w,
                       Span<float> logprobs, Span<float> entropies, Arena& arena)
    : ctx_(ctx),
      phase_(ctx, "head and loss"),
      rows_(rows),
      w_(w),
      logprobs_(logprobs),
      entropies_(entropies),
      scope_(arena) {
  check(rows, w, logprobs, entropies);
  ORRERY_CHECK(!entropies.empty() || rows.hidden.rows == 0, "the backward needs entropies");
  const int64_t chunk = lm_head_chunk_rows(w.n, rows.hidden.rows);
  logits_ = arena.mat<float>(chunk, w.n);
  lse_ = arena.span<float>(chunk);
  dlogp_ = arena.span<float>(chunk);
  dentropy_ = arena.span<float>(chunk);
}

std::optional<LmHeadChunk> LmHeadWalk::next() {
  const int64_t begin = next_, count = std::min(logits_.rows, rows_.hidden.rows - begin);
  if (count == 0) return std::nullopt;
  next_ += count;
  const auto logp = part(logprobs_, begin, count), entropy = part(entropies_, begin, count);
  const Mat<float> z = logits_.row_range(0, count);
  matmul_forward(ctx_, {.y = z, .x = rows_.hidden.row_range(begin, begin + count), .weight = w_});
  logprob_forward(ctx_, logp, entropy, part(lse_, 0, count), z, part(rows_.targets, begin, count),
                  part(rows_.inv_temperature, begin, count));
  return LmHeadChunk{begin, logp, entropy, part(dlogp_, 0, count), part(dentropy_, 0, count)};
}

void LmHeadWalk::backward(const LmHeadChunk& chunk, Mat<float> dhidden, Mat<float> dw) {
  const int64_t begin = chunk.begin, count = chunk.logprobs.size();
  const Mat<float> z = logits_.row_range(0, count);
  logprob_backward(ctx_, z, part(rows_.targets, begin, count), part(lse_, 0, count),
                   chunk.entropies, chunk.dlogp, chunk.dentropy,
                   part(rows_.inv_temperature, begin, count));
  matmul_backward_input(ctx_,
                        {.dx = dhidden.row_range(begin, begin + count), .dy = z, .weight = w_});
  matmul_backward_weight(ctx_,
                         {.dw = dw, .dy = z, .x = rows_.hidden.row_range(begin, begin + count)});
}

}  // namespace orrery::kernels
