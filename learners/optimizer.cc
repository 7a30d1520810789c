#include "learners/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/fault.h"
#include "core/transfer.h"
#include "kernels/elementwise.h"

namespace orrery::learners {

ShardedAdamW::ShardedAdamW(Device device, int64_t flat_size, int ranks, int rank)
    : rank_(rank),
      plan_(plan_slices(flat_size, kernels::kNormChunk, ranks)),
      owned_(plan_.all_extents()) {
  const size_t bytes = total_size(extents()) * sizeof(float);
  constexpr Buffer::Purpose kMoments{
      "the optimizer's moments", "use more learner ranks, which share them, or a smaller model"};
  m_ = Buffer::zeroed(device, bytes, kMoments);
  v_ = Buffer::zeroed(device, bytes, kMoments);
  const auto chunk = [](int64_t element) {
    return (element + kernels::kNormChunk - 1) / kernels::kNormChunk;
  };
  chunk_sums_ = Buffer(device, chunk(flat_size) * sizeof(float));
  for (const auto& extents : owned_) {
    owned_chunks_.emplace_back();
    for (const Extent& e : extents) owned_chunks_.back().push_back({chunk(e.begin), chunk(e.end)});
  }
}

void ShardedAdamW::reset(const Context& ctx) {
  kernels::fill(ctx, {.y = m()});
  kernels::fill(ctx, {.y = v()});
  t_ = 0;
}

ShardedAdamW::Result ShardedAdamW::step(const Context& ctx, comm::Communicator& comm,
                                        Vec<float> parameters, Vec<const float> gradient,
                                        const kernels::AdamWParams& params, double clip_grad) {
  ORRERY_CHECK(gradient.size == plan_.elements(), "gradient of {}, not {}", gradient.size,
               plan_.elements());
  comm::DataPlane& plane = comm.data(ctx.device);
  const Vec<float> device_sums = chunk_sums_.vec<float>();
  for (size_t i = 0; i < extents().size(); ++i) {
    kernels::sum_squares_chunks(ctx, {.sums = elements_of(device_sums, owned_chunks_[rank_][i]),
                                      .x = elements_of(gradient, extents()[i])});
  }
  plane.all_gather(ctx, device_sums, owned_chunks_);
  Array<float> chunk_sums(device_sums.size);
  download(ctx, Span<float>(chunk_sums), device_sums);
  double total = 0;
  for (const float sum : chunk_sums) total += sum;

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
    kernels::adamw_step(ctx, {.w = elements_of(parameters, e),
                              .m = m().part(at, e.size()),
                              .v = v().part(at, e.size()),
                              .grad = elements_of(gradient, e),
                              .params = params,
                              .t = t_,
                              .grad_scale = static_cast<float>(scale)});
    at += e.size();
  }
  fault_point(FaultPoint::kOptimizerStep);
  plane.all_gather(ctx, parameters, owned_);
  return result;
}

}  // namespace orrery::learners
