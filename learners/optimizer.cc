#include "learners/optimizer.h"

#include <algorithm>
#include <cmath>

#include "comm/ordered_reducer.h"
#include "core/error.h"
#include "core/fault.h"

namespace orrery {

ShardedAdamW::ShardedAdamW(Device device, int64_t flat_size, int ranks, int rank)
    : rank_(rank), offsets_(slice_offsets(flat_size, kNormChunk, ranks)) {
  const auto bytes = static_cast<size_t>(end() - begin()) * sizeof(float);
  m_ = Buffer::zeroed(device, bytes);
  v_ = Buffer::zeroed(device, bytes);
  chunk_sums_.resize(static_cast<size_t>((flat_size + kNormChunk - 1) / kNormChunk));
  for (const int64_t offset : offsets_) chunk_offsets_.push_back((offset + kNormChunk - 1) / kNormChunk);
}

void ShardedAdamW::reset() {
  std::fill(m().begin(), m().end(), 0.0f);
  std::fill(v().begin(), v().end(), 0.0f);
  t_ = 0;
}

ShardedAdamW::Result ShardedAdamW::step(const Context& ctx, Communicator& comm, std::span<float> parameters,
                                        std::span<const float> gradient, const AdamWParams& params,
                                        double clip_grad) {
  const int64_t size = end() - begin();
  ORRERY_CHECK(static_cast<int64_t>(gradient.size()) == size, "gradient slice of {}, not {}", gradient.size(),
               size);
  const int64_t first = chunk_offsets_[static_cast<size_t>(rank_)];
  const int64_t count = chunk_offsets_[static_cast<size_t>(rank_) + 1] - first;
  const auto mine = std::span(chunk_sums_).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  sum_squares_chunks(ctx, mine, gradient);
  comm.all_gather(chunk_sums_, chunk_offsets_, mine);
  double total = 0;
  for (const float sum : chunk_sums_) total += sum;

  Result result;
  result.grad_norm = std::sqrt(total);
  if (!std::isfinite(result.grad_norm)) {
    result.skipped = true;
    return result;
  }
  const double scale =
      clip_grad > 0 && result.grad_norm > clip_grad ? clip_grad / (result.grad_norm + 1e-6) : 1.0;
  ++t_;
  const auto slice = parameters.subspan(static_cast<size_t>(begin()), static_cast<size_t>(size));
  adamw_step(ctx, slice, m(), v(), gradient, params, t_, static_cast<float>(scale));
  fault_point(FaultPoint::kOptimizerStep);
  comm.all_gather(parameters, offsets_, slice);
  return result;
}

}  // namespace orrery
