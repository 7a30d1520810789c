#include "experiments/device_memory.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "core/process.h"
#include "experiments/on_all_ranks.h"

namespace orrery::experiments {
namespace {

constexpr size_t kGib = size_t{1} << 30;
/// Parts that two ranks take of a device begin on pages of their own.
constexpr size_t kShareMultiple = size_t{2} << 20;
constexpr Buffer::Purpose kPurpose{
    "keys and values, gradients and temporaries",
    "leave the device to this job, or give rollout.kv_cache_gb a size"};

double gib(size_t bytes) { return static_cast<double>(bytes) / kGib; }

/// What tells the device from all others of the job; empty where its rest is not taken.
std::string name_of(const proto::Config& config, Device device) {
  if (!takes_rest_of_device(config, device)) return "";
  return host_name() + " " + device_identity(device);
}

}  // namespace

bool takes_rest_of_device(const proto::Config& config, Device device) {
  return device.type == DeviceType::kCuda && config.rollout().kv_cache_gb() == 0;
}

size_t device_margin(size_t total) { return std::min(total / 20, 2 * kGib); }

Buffer take_rest_of_device(const proto::Config& config, comm::Communicator& world, Device device) {
  // Nobody gets here before having taken what the stage keeps.
  const std::string mine = name_of(config, device);
  const std::vector<std::string> all = world.all_gather_bytes(mine);
  const auto sharers = static_cast<size_t>(std::ranges::count(all, mine));
  Buffer rest;
  size_t share = 0;
  on_all_ranks(world, [&] {
    if (mine.empty()) return;
    const DeviceMemory memory = device_memory(device);
    const size_t margin = device_margin(memory.total);
    if (memory.free > margin)
      share = (memory.free - margin) / sharers / kShareMultiple * kShareMultiple;
    if (share > 0) return;
    fail(
        "out of memory: {:.2f} of {:.2f} GiB of {} are free after the weights and the optimizer's "
        "moments were taken, and {:.2f} are left to the driver; use more learner ranks, a smaller "
        "model, or a device that nobody else uses",
        gib(memory.free), gib(memory.total), device_name(device), gib(margin));
  });
  on_all_ranks(world, [&] {
    if (share > 0) rest = Buffer(device, share, kPurpose);
  });
  if (share > 0 && world.rank() == 0) {
    spdlog::info("{}: {:.3g} GiB for keys and values, gradients and temporaries",
                 device_name(device), gib(share));
  }
  return rest;
}

}  // namespace orrery::experiments
