#include "comm/plane_choice.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "comm/nccl_data_plane.h"
#include "core/cuda_api.h"
#include "core/error.h"
#include "core/process.h"

namespace orrery::comm {
namespace {

using proto::ClusterSection;

/// One rank has nobody to send to: NCCL only on demand, to try it.
bool may_be_nccl(const ClusterSection& cluster, int ranks) {
  return cluster.data_plane() == ClusterSection::NCCL ||
         (cluster.data_plane() == ClusterSection::AUTO && ranks > 1);
}

std::string place(const std::vector<proto::RankDevice>& ranks, size_t rank) {
  return fmt::format("rank {} ({}, {})", rank, ranks[rank].host(), ranks[rank].device());
}

/// What stands against NCCL on these ranks; empty where nothing does.
std::string obstacle(const std::vector<proto::RankDevice>& ranks) {
  std::map<std::string, size_t> first_of_gpu;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto [first, is_new] = first_of_gpu.emplace(ranks[rank].gpu(), rank);
    if (is_new) continue;
    return fmt::format("{} and {} share one GPU, which NCCL refuses", place(ranks, first->second),
                       place(ranks, rank));
  }
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (ranks[rank].nccl_problem().empty()) continue;
    return fmt::format("on {}, {}", place(ranks, rank), ranks[rank].nccl_problem());
  }
  for (size_t rank = 1; rank < ranks.size(); ++rank) {
    if (ranks[rank].nccl_version() == ranks[0].nccl_version()) continue;
    return fmt::format("{} has NCCL {}, {} has {}, and all must have the same", place(ranks, 0),
                       nccl::version_text(ranks[0].nccl_version()), place(ranks, rank),
                       nccl::version_text(ranks[rank].nccl_version()));
  }
  return "";
}

}  // namespace

proto::RankDevice describe_rank(const ClusterSection& cluster, const std::string& key,
                                Device device, int ranks) {
  proto::RankDevice mine;
  mine.set_key(key);
  mine.set_host(host_name());
  mine.set_device(device_name(device));
  mine.set_is_cuda(device.type == DeviceType::kCuda);
  if (!mine.is_cuda() || !may_be_nccl(cluster, ranks)) return mine;
  if constexpr (kCudaBuilt) {
    cuda_api::use(device);
    mine.set_gpu(cuda_api::identity(device).uuid);
  }
  try {
    mine.set_nccl_version(nccl::open_api()->version);
  } catch (const Error& error) {
    mine.set_nccl_problem(error.what());
  }
  return mine;
}

PlaneChoice choose_plane(const ClusterSection& cluster,
                         const std::vector<proto::RankDevice>& ranks) {
  const bool wanted = cluster.data_plane() == ClusterSection::NCCL;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto same_key = [&](const proto::RankDevice& r) { return r.key() == ranks[rank].key(); };
    const auto first = static_cast<size_t>(std::ranges::find_if(ranks, same_key) - ranks.begin());
    if (ranks[rank].is_cuda() == ranks[first].is_cuda()) continue;
    fail_usage("{} and {} are on devices of different kinds: set {} to the one that all have",
               place(ranks, first), place(ranks, rank), ranks[rank].key());
  }
  for (size_t rank = 1; rank < ranks.size(); ++rank) {
    if (ranks[rank].is_cuda() == ranks[0].is_cuda()) continue;
    const std::string why = fmt::format("{} and {} are on devices of different kinds",
                                        place(ranks, 0), place(ranks, rank));
    if (wanted) fail_usage("cluster.data_plane is nccl, but {}; set it to auto", why);
    return {false, "MPI through host memory, as " + why};
  }
  if (!ranks.front().is_cuda()) {
    if (wanted) {
      fail_usage(
          "cluster.data_plane is nccl but device is {}, and NCCL is for CUDA devices: "
          "set device to cuda, or cluster.data_plane to auto",
          ranks.front().device());
    }
    return {};
  }
  const auto count = static_cast<int>(ranks.size());
  if (!may_be_nccl(cluster, count)) {
    if (count == 1) return {};
    return {false, "MPI through host memory (cluster.data_plane is mpi)"};
  }
  const std::string against = obstacle(ranks);
  if (against.empty()) return {true, "NCCL " + nccl::version_text(ranks.front().nccl_version())};
  if (wanted) {
    fail_usage(
        "cluster.data_plane is nccl, but {}; mend that, or set cluster.data_plane to mpi, which "
        "goes through host memory",
        against);
  }
  return {false, "MPI through host memory, as " + against};
}

std::string set_up_data_plane(Communicator& world, const ClusterSection& cluster,
                              const proto::RankDevice& mine) {
  std::vector<proto::RankDevice> ranks;
  for (const std::string& bytes : world.all_gather_bytes(mine.SerializeAsString())) {
    if (!ranks.emplace_back().ParseFromString(bytes))
      fail("rank {} sent no description of its device", ranks.size() - 1);
  }
  PlaneChoice choice = choose_plane(cluster, ranks);
  if (choice.nccl) {
    choice.why += fmt::format(" ({})", nccl::open_api()->library.path());
    world.set_plane_maker([timeout = cluster.hang_timeout_s()](
                              Communicator& comm, Device device) -> std::unique_ptr<DataPlane> {
      if (device.type != DeviceType::kCuda) return nullptr;
      return nccl::make_data_plane(comm, device, nccl::open_api(), timeout);
    });
  }
  return choice.why;
}

}  // namespace orrery::comm
