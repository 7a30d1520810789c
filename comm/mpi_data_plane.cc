// The data plane over MPI.
#include <memory>

#include "comm/checks.h"
#include "comm/mpi_all_to_all.h"
#include "comm/mpi_support.h"
#include "core/error.h"
#include "core/host_image.h"

namespace orrery::comm::mpi {
namespace {

class MpiDataPlane final : public DataPlane {
 public:
  explicit MpiDataPlane(const RankGroup& group) : group_(group) {}

  void broadcast(const Context& ctx, DeviceArray data, int root) override {
    ORRERY_CHECK(root >= 0 && root < group_.size, "broadcast: rank {} of {}", root, group_.size);
    HostImage image(ctx, data.bytes(), HostUser::kLibrary);
    const WaitState::Scope moving = group_.arrive("broadcast");
    const Span<std::byte> bytes = group_.rank == root ? image.fetch() : image.values();
    for_chunks(bytes.size(), [&](int64_t begin, int count) {
      check(MPI_Bcast(bytes.data() + begin, count, MPI_BYTE, root, group_.comm), "MPI_Bcast",
            group_.rank, root);
    });
    if (group_.rank != root) image.commit();
  }

  void all_reduce_sum(const Context& ctx, DeviceArray data) override {
    if (data.dtype != DType::kF32)
      fail("all_reduce: elements are {}; MPI's sums are of f32", dtype_name(data.dtype));
    HostImage image(ctx, data.bytes(), HostUser::kLibrary);
    const WaitState::Scope moving = group_.arrive("all_reduce");
    const Span<std::byte> bytes = image.fetch();
    for_chunks(bytes.size(), [&](int64_t begin, int count) {
      check(MPI_Allreduce(MPI_IN_PLACE, bytes.data() + begin, count / int{sizeof(float)}, MPI_FLOAT,
                          MPI_SUM, group_.comm),
            "MPI_Allreduce", group_.rank);
    });
    image.commit();
  }

  void all_gather(const Context& ctx, DeviceArray all,
                  Span<const std::vector<Extent>> owned) override {
    check_extents(owned, group_.size, all.size);
    HostImage image(ctx, all.bytes(), HostUser::kLibrary);
    const WaitState::Scope moving = group_.arrive("all_gather");
    for (const Extent& e : owned[group_.rank]) image.fetch(all.bytes_of(e));
    Transfers transfers(group_.comm, group_.rank);
    for (int step = 1; step < group_.size; ++step) {
      const int from = (group_.rank - step + group_.size) % group_.size;
      for (const Extent& e : owned[from]) {
        transfers.receive(from, image.values(all.bytes_of(e)), "all_gather");
      }
    }
    for (int step = 1; step < group_.size; ++step) {
      for (const Extent& e : owned[group_.rank]) {
        transfers.send((group_.rank + step) % group_.size, image.values(all.bytes_of(e)),
                       "all_gather");
      }
    }
    transfers.finish("all_gather");
    for (int from = 0; from < group_.size; ++from) {
      if (from == group_.rank) continue;
      for (const Extent& e : owned[from]) image.commit(all.bytes_of(e));
    }
  }

  std::unique_ptr<AllToAll> all_to_all(const Context& ctx,
                                       const AllToAllBuffers& buffers) override {
    return std::make_unique<MpiAllToAll>(ctx, group_, buffers);
  }

 private:
  RankGroup group_;
};

}  // namespace

std::unique_ptr<DataPlane> make_data_plane(const RankGroup& group) {
  return std::make_unique<MpiDataPlane>(group);
}

}  // namespace orrery::comm::mpi
