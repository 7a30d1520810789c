#include "kernels/lm_head.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/cpu/lm_head.h"
#include "kernels/cuda/lm_head.h"
#include "kernels/dispatch.h"
#include "kernels/logprob.h"
#include "kernels/numerics.h"

namespace orrery::kernels {
namespace {

void check(const LmHeadForward& op) {
  const int64_t r = op.hidden.rows;
  ORRERY_CHECK(op.hidden.cols == op.weight.k, "hidden has {} columns, the head {}", op.hidden.cols,
               op.weight.k);
  ORRERY_CHECK(op.hidden.dtype == op.weight.dtype, "hidden is {}, the head {}",
               dtype_name(op.hidden.dtype), dtype_name(op.weight.dtype));
  ORRERY_CHECK(op.targets.size == r && op.inv_temperature.size == r && op.logprobs.size == r &&
                   (op.entropies.empty() || op.entropies.size == r),
               "{} rows, {} targets, {} temperatures, {} log-probs", r, op.targets.size,
               op.inv_temperature.size, op.logprobs.size);
}

/// What a chunk's backward needs of its forward.
struct Statistics {
  Vec<float> max, log_sum;
};

/// Log-probs of rows [begin, begin + logits.rows), and their logits.
void forward_chunk(const Context& ctx, const LmHeadForward& op, int64_t begin, Mat<float> logits,
                   const Statistics& statistics) {
  const int64_t count = logits.rows;
  matmul_forward(
      ctx, {.y = logits, .x = op.hidden.row_range(begin, begin + count), .weight = op.weight});
  logprob_forward(
      ctx, {.logprobs = op.logprobs.part(begin, count),
            .entropies = op.entropies.empty() ? op.entropies : op.entropies.part(begin, count),
            .max = statistics.max,
            .log_sum = statistics.log_sum,
            .logits = logits,
            .targets = op.targets.part(begin, count),
            .inv_temperature = op.inv_temperature.part(begin, count),
            .numerics = numerics_class(ctx.device, op.weight.dtype)});
}

/// Rows of a block of dW's sum in pairs.
constexpr int64_t kBlockRows = 32;

/// Where the chunk from `begin` ends, of at most `most` rows. In bf16 a block of dW
/// lies in one chunk, so a chunk ends with a block or with a run. REQUIRES: `most` is
/// at least kBlockRows, or the rest.
int64_t chunk_end(const LmHeadForward& op, int64_t begin, int64_t most) {
  const int64_t rows = op.hidden.rows, end = std::min(begin + most, rows);
  if (op.weight.dtype != DType::kBF16) return end;
  int64_t run = 0;
  for (const int64_t run_end : op.run_ends) {
    if (run_end > end) break;
    run = run_end;
  }
  return end == rows ? end : run + (end - run) / kBlockRows * kBlockRows;
}

/// The ends of the runs within rows [begin, end), the last one at the end, counted from
/// `begin`.
Array<int64_t> runs_within(Span<const int64_t> run_ends, int64_t begin, int64_t end) {
  Array<int64_t> ends(run_ends.size() + 1);
  int64_t count = 0;
  for (const int64_t run_end : run_ends) {
    if (run_end > begin && run_end < end) ends[count++] = run_end - begin;
  }
  ends[count++] = end - begin;
  ends.resize(count);
  return ends;
}

/// A walk's memory.
struct Temporaries {
  Mat<float> logits;
  ActMat dlogits;
  Vec<float> max, log_sum, dlogp, dentropy;
};

Temporaries allocate(DType dtype, int64_t vocab, int64_t chunk, Arena& arena) {
  Temporaries t;
  t.logits = arena.mat<float>(chunk, vocab);
  t.dlogits = dtype == DType::kBF16 ? arena.act_mat(dtype, chunk, vocab) : ActMat(t.logits);
  for (Vec<float>* const vec : {&t.max, &t.log_sum, &t.dlogp, &t.dentropy})
    *vec = arena.vec<float>(chunk);
  return t;
}

}  // namespace

void measure_lm_head(DType dtype, int64_t vocab, int64_t rows, Arena& arena) {
  const ArenaScope scope(arena);
  allocate(dtype, vocab, lm_head_chunk_rows(arena.device(), vocab, rows, dtype), arena);
}

int64_t lm_head_chunk_rows(Device device, int64_t vocab, int64_t rows, DType dtype) {
  return dispatch<cpu::lm_head_chunk_rows, cuda::lm_head_chunk_rows>(
      Context{.device = device}, "lm_head_chunk_rows",
      LmHeadChunkRows{.vocab = vocab, .rows = rows, .dtype = dtype});
}

void lm_head_logprob(const Context& ctx, const LmHeadForward& op, Arena& arena) {
  const ProfilePhaseScope phase(ctx, "head and loss");
  check(op);
  const ArenaScope scope(arena);
  const int64_t rows = op.hidden.rows;
  const int64_t chunk = lm_head_chunk_rows(ctx.device, op.weight.n, rows, op.weight.dtype);
  const Mat<float> logits = arena.mat<float>(chunk, op.weight.n);
  for (int64_t begin = 0; begin < rows; begin += chunk)
    forward_chunk(ctx, op, begin, logits.row_range(0, std::min(chunk, rows - begin)), {});
}

LmHeadWalk::LmHeadWalk(const Context& ctx, const LmHeadForward& op, Arena& arena)
    : ctx_(ctx), phase_(ctx, "head and loss"), op_(op), scope_(arena) {
  check(op);
  const int64_t rows = op.hidden.rows;
  ORRERY_CHECK(!op.entropies.empty() || rows == 0, "the backward needs entropies");
  const auto& runs = op.run_ends;
  ORRERY_CHECK(runs.empty() || (std::is_sorted(runs.begin(), runs.end()) && runs[0] >= 0 &&
                                runs[runs.size() - 1] == rows),
               "the runs of {} rows must rise to {}", rows, rows);
  const Temporaries t =
      allocate(op.weight.dtype, op.weight.n,
               lm_head_chunk_rows(ctx.device, op.weight.n, rows, op.weight.dtype), arena);
  logits_ = t.logits, dlogits_ = t.dlogits;
  max_ = t.max, log_sum_ = t.log_sum, dlogp_ = t.dlogp, dentropy_ = t.dentropy;
}

std::optional<LmHeadChunk> LmHeadWalk::next() {
  if (next_ == op_.hidden.rows) return std::nullopt;
  const int64_t begin = next_, count = chunk_end(op_, begin, logits_.rows) - begin;
  next_ += count;
  forward_chunk(ctx_, op_, begin, logits_.row_range(0, count),
                {.max = max_.part(0, count), .log_sum = log_sum_.part(0, count)});
  return LmHeadChunk{.begin = begin,
                     .logprobs = op_.logprobs.part(begin, count),
                     .entropies = op_.entropies.part(begin, count),
                     .dlogp = dlogp_.part(0, count),
                     .dentropy = dentropy_.part(0, count)};
}

void LmHeadWalk::backward(const LmHeadChunk& chunk, Mat<float> dhidden, Mat<float> dw,
                          bool accumulate) {
  const int64_t begin = chunk.begin, count = chunk.logprobs.size;
  const ActMat dlogits = dlogits_.row_range(0, count);
  logprob_backward(ctx_, {.dlogits = dlogits,
                          .logits = logits_.row_range(0, count),
                          .targets = op_.targets.part(begin, count),
                          .max = max_.part(0, count),
                          .log_sum = log_sum_.part(0, count),
                          .entropies = chunk.entropies,
                          .dlogp = chunk.dlogp,
                          .dentropy = chunk.dentropy,
                          .inv_temperature = op_.inv_temperature.part(begin, count)});
  matmul_backward_input(
      ctx_, {.dx = dhidden.row_range(begin, begin + count), .dy = dlogits, .weight = op_.weight});
  const Array<int64_t> runs = runs_within(op_.run_ends, begin, begin + count);
  matmul_backward_weight(ctx_, {.dw = dw,
                                .dy = dlogits,
                                .x = op_.hidden.row_range(begin, begin + count),
                                .run_ends = runs,
                                .accumulate = accumulate || begin > 0});
}

}  // namespace orrery::kernels
