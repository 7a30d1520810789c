#include "kernels/lm_head.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/cpu/lm_head.h"
#include "kernels/cuda/lm_head.h"
#include "kernels/dispatch.h"
#include "kernels/logprob.h"

namespace orrery::kernels {
namespace {

void check(const LmHeadForward& op) {
  const int64_t r = op.hidden.rows;
  ORRERY_CHECK(op.hidden.cols == op.weight.k, "hidden has {} columns, the head {}", op.hidden.cols,
               op.weight.k);
  ORRERY_CHECK(op.targets.size == r && op.inv_temperature.size == r && op.logprobs.size == r &&
                   (op.entropies.empty() || op.entropies.size == r),
               "{} rows, {} targets, {} temperatures, {} log-probs", r, op.targets.size,
               op.inv_temperature.size, op.logprobs.size);
}

/// Log-probs of rows [begin, begin + logits.rows), and their logits.
void forward_chunk(const Context& ctx, const LmHeadForward& op, int64_t begin, Mat<float> logits,
                   Vec<float> lse) {
  const int64_t count = logits.rows;
  matmul_forward(
      ctx, {.y = logits, .x = op.hidden.row_range(begin, begin + count), .weight = op.weight});
  logprob_forward(
      ctx, {.logprobs = op.logprobs.part(begin, count),
            .entropies = op.entropies.empty() ? op.entropies : op.entropies.part(begin, count),
            .lse = lse,
            .logits = logits,
            .targets = op.targets.part(begin, count),
            .inv_temperature = op.inv_temperature.part(begin, count)});
}

}  // namespace

int64_t lm_head_chunk_rows(Device device, int64_t vocab, int64_t rows) {
  return dispatch<cpu::lm_head_chunk_rows, cuda::lm_head_chunk_rows>(
      Context{.device = device}, "lm_head_chunk_rows", LmHeadChunkRows{vocab, rows});
}

void lm_head_logprob(const Context& ctx, const LmHeadForward& op, Arena& arena) {
  const ProfilePhaseScope phase(ctx, "head and loss");
  check(op);
  const ArenaScope scope(arena);
  const int64_t rows = op.hidden.rows;
  const int64_t chunk = lm_head_chunk_rows(ctx.device, op.weight.n, rows);
  const Mat<float> logits = arena.mat<float>(chunk, op.weight.n);
  for (int64_t begin = 0; begin < rows; begin += chunk)
    forward_chunk(ctx, op, begin, logits.row_range(0, std::min(chunk, rows - begin)), {});
}

LmHeadWalk::LmHeadWalk(const Context& ctx, const LmHeadForward& op, Arena& arena)
    : ctx_(ctx), phase_(ctx, "head and loss"), op_(op), scope_(arena) {
  check(op);
  const int64_t rows = op.hidden.rows;
  ORRERY_CHECK(!op.entropies.empty() || rows == 0, "the backward needs entropies");
  const int64_t chunk = lm_head_chunk_rows(ctx.device, op.weight.n, rows);
  const auto vec = [&] { return Vec<float>(arena.alloc<float>(chunk), chunk); };
  logits_ = arena.mat<float>(chunk, op.weight.n);
  lse_ = vec();
  dlogp_ = vec();
  dentropy_ = vec();
}

std::optional<LmHeadChunk> LmHeadWalk::next() {
  const int64_t begin = next_, count = std::min(logits_.rows, op_.hidden.rows - begin);
  if (count == 0) return std::nullopt;
  next_ += count;
  forward_chunk(ctx_, op_, begin, logits_.row_range(0, count), lse_.part(0, count));
  return LmHeadChunk{.begin = begin,
                     .logprobs = op_.logprobs.part(begin, count),
                     .entropies = op_.entropies.part(begin, count),
                     .dlogp = dlogp_.part(0, count),
                     .dentropy = dentropy_.part(0, count)};
}

void LmHeadWalk::backward(const LmHeadChunk& chunk, ActMat dhidden, Mat<float> dw) {
  const int64_t begin = chunk.begin, count = chunk.logprobs.size;
  const Mat<float> dlogits = logits_.row_range(0, count);
  logprob_backward(ctx_, {.logits = dlogits,
                          .targets = op_.targets.part(begin, count),
                          .lse = lse_.part(0, count),
                          .entropies = chunk.entropies,
                          .dlogp = chunk.dlogp,
                          .dentropy = chunk.dentropy,
                          .inv_temperature = op_.inv_temperature.part(begin, count)});
  matmul_backward_input(
      ctx_, {.dx = dhidden.row_range(begin, begin + count), .dy = dlogits, .weight = op_.weight});
  matmul_backward_weight(
      ctx_, {.dw = dw, .dy = dlogits, .x = op_.hidden.row_range(begin, begin + count)});
}

}  // namespace orrery::kernels
