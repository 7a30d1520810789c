#include "comm/nccl_data_plane.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "comm/checks.h"
#include "comm/nccl_all_to_all.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/flight_recorder.h"

namespace orrery::comm::nccl {
namespace {

/// Extents of each rank that one group of calls gathers. All ranks cut the lists alike,
/// so that the two sides of a transfer stand in the same group.
constexpr int64_t kExtentsInGroup = 64;

class NcclDataPlane final : public DataPlane {
 public:
  NcclDataPlane(Communicator& comm, Device device, std::shared_ptr<const Api> api,
                double timeout_seconds)
      : exchange_stream_(device), group_(comm, device, std::move(api), timeout_seconds) {}

  void broadcast(const Context& ctx, DeviceArray data, int root) override {
    constexpr const char* kOperation = "broadcast";
    ORRERY_CHECK(root >= 0 && root < group_.size(), "broadcast: rank {} of {}", root,
                 group_.size());
    check_device(ctx, kOperation);
    if (data.size == 0) return;
    run(ctx, kOperation, [&] { group_.broadcast(data.bytes(), root); });
  }

  void all_reduce_sum(const Context& ctx, DeviceArray data) override {
    constexpr const char* kOperation = "all_reduce";
    check_device(ctx, kOperation);
    if (data.dtype != DType::kF32)
      fail("all_reduce: elements are {}; NCCL's sums are of f32", dtype_name(data.dtype));
    if (data.size == 0) return;
    run(ctx, kOperation, [&] {
      group_.all_reduce_sum({static_cast<float*>(data.data), data.size});
    });
  }

  void all_gather(const Context& ctx, DeviceArray all,
                  Span<const std::vector<Extent>> owned) override {
    constexpr const char* kOperation = "all_gather";
    check_extents(owned, group_.size(), all.size);
    check_device(ctx, kOperation);
    int64_t longest = 0;
    for (const auto& extents : owned) longest = std::max<int64_t>(longest, std::ssize(extents));
    for (int64_t begin = 0; begin < longest; begin += kExtentsInGroup)
      run(ctx, kOperation, [&] { gather(all, owned, begin); });
  }

  std::unique_ptr<AllToAll> all_to_all(const Context& ctx,
                                       const AllToAllBuffers& buffers) override {
    check_device(ctx, "all_to_all");
    return std::make_unique<NcclAllToAll>(ctx, group_, exchange_stream_, buffers);
  }

 private:
  void check_device(const Context& ctx, const char* operation) const {
    ORRERY_CHECK(ctx.device == group_.device(), "{}: memory of {} for the collectives of {}",
                 operation, device_name(ctx.device), device_name(group_.device()));
  }

  template <class Calls>
  void run(const Context& ctx, const char* operation, Calls&& calls) {
    // What this rank still computes is not waiting for others, and a deadline that it
    // counted against would be theirs to blame.
    ctx.stream().synchronize();
    record_event("{} of {} ranks over NCCL", operation, group_.size());
    fault_point(FaultPoint::kCollectiveMove);
    group_.begin(operation, ctx.stream());
    calls();
    group_.end();
    group_.await_calls(ctx.stream());
  }

  /// Calls body(bytes) for the rank's extents from number `begin` on that are of one
  /// group.
  template <class Body>
  static void for_extents(DeviceArray all, const std::vector<Extent>& extents, int64_t begin,
                          Body&& body) {
    const int64_t end = std::min<int64_t>(begin + kExtentsInGroup, std::ssize(extents));
    for (int64_t i = begin; i < end; ++i) {
      const Extent& extent = extents[static_cast<size_t>(i)];
      if (extent.size() > 0) body(elements_of(all.bytes(), all.bytes_of(extent)));
    }
  }

  void gather(DeviceArray all, Span<const std::vector<Extent>> owned, int64_t begin) {
    for (int step = 1; step < group_.size(); ++step) {
      const int to = (group_.rank() + step) % group_.size();
      const int from = (group_.rank() - step + group_.size()) % group_.size();
      for_extents(all, owned[group_.rank()], begin,
                  [&](Vec<std::byte> mine) { group_.send(to, mine); });
      for_extents(all, owned[from], begin,
                  [&](Vec<std::byte> theirs) { group_.receive(from, theirs); });
    }
  }

  Stream exchange_stream_;
  Group group_;  // ends before the stream that it may be busy on
};

}  // namespace

std::unique_ptr<DataPlane> make_data_plane(Communicator& comm, Device device,
                                           std::shared_ptr<const Api> api, double timeout_seconds) {
  return std::make_unique<NcclDataPlane>(comm, device, std::move(api), timeout_seconds);
}

}  // namespace orrery::comm::nccl
