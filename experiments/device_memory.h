// What is left of a CUDA device's memory, taken at the start of a stage.
#pragma once

#include <cstddef>

#include "comm/communicator.h"
#include "core/buffer.h"
#include "proto/config.pb.h"

namespace orrery::experiments {

/// Whether ranks on this device take all that is left of it: rollout.kv_cache_gb is 0,
/// and the device is CUDA's.
bool takes_rest_of_device(const proto::Config& config, Device device);

/// What stays free of a device's memory, for the libraries and the driver: a twentieth,
/// 2 GiB at most.
size_t device_margin(size_t total);

/// This rank's share of what is free of its device, beyond the margin: all ranks of
/// `world` that are on the device get the same. Empty for a device whose rest nobody
/// takes. Collective over `world`: what its ranks have taken before is not free, and
/// none takes more until all have looked. Error when there is nothing.
Buffer take_rest_of_device(const proto::Config& config, comm::Communicator& world, Device device);

}  // namespace orrery::experiments
