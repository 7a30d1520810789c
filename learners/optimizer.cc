#include "learners/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/fault.h"
#include "core/transfer.h"

namespace orrery::learners {

ShardedAdamW::ShardedAdamW(Device device, int64_t flat_size, int ranks, int rank)
    : rank_(rank),
      plan_(plan_slices(flat_size, kernels::kNormChunk, ranks)),
      owned_(plan_.all_extents()) {
  const size_t bytes = total_size(extents()) * sizeof(float);
  m_ = Buffer::zeroed(device, bytes);
  v_ = Buffer::zeroed(device, bytes);
  const auto chunk = [](int64_t element) {
    return (element + kernels::kNormChunk - 1) / kernels::kNormChunk;
  };
  norm_terms_.resize(chunk(flat_size));
  chunk_sums_ = Buffer(device, Span<float>(norm_terms_).size_bytes());
  for (const auto& extents : owned_) {
    owned_chunks_.emplace_back();
    for (const Extent& e : extents) owned_chunks_.back().push_back({chunk(e.begin), chunk(e.end)});
  }
}

void ShardedAdamW::reset() {
  std::fill(m().begin(), m().end(), 0.0f);
  std::fill(v().begin(), v().end(), 0.0f);
  t_ = 0;
}

ShardedAdamW::Result ShardedAdamW::step(const Context& ctx, comm::Communicator& comm,
                                        std::span<float> parameters,
                                        std::span<const float> gradient,
                                        const kernels::AdamWParams& params, double clip_grad) {
  ORRERY_CHECK(std::ssize(gradient) == plan_.elements(), "gradient of {}, not {}", gradient.size(),
               plan_.elements());
  comm::DataPlane& plane = comm.data(ctx.device);
  const Vec<float> sums(static_cast<float*>(chunk_sums_.data()), norm_terms_.size());
  for (size_t i = 0; i < extents().size(); ++i) {
    const Extent& chunks = owned_chunks_[rank_][i];
    kernels::sum_squares_chunks(ctx, sums.part(chunks.begin, chunks.size()),
                                elements_of(gradient, extents()[i]));
  }
  plane.all_gather(ctx, sums, owned_chunks_);
  download(ctx, Span<float>(norm_terms_), sums);
  double total = 0;
  for (const float sum : norm_terms_) total += sum;

  Result result;
  result.grad_norm = std::sqrt(total);
  if (!std::isfinite(result.grad_norm)) {
    result.skipped = true;
    return result;
  }
  const double scale =
      clip_grad > 0 && result.grad_norm > clip_grad ? clip_grad / (result.grad_norm + 1e-6) : 1.0;
  ++t_;
  int64_t at = 0;
  for (const Extent& e : extents()) {
    const Extent moments{at, at + e.size()};
    kernels::adamw_step(ctx, elements_of(parameters, e), elements_of(m(), moments),
                        elements_of(v(), moments), elements_of(gradient, e), params, t_,
                        static_cast<float>(scale));
    at = moments.end;
  }
  fault_point(FaultPoint::kOptimizerStep);
  plane.all_gather(ctx, Vec<float>(Span<float>(parameters)), owned_);
  return result;
}

}  // namespace orrery::learners
