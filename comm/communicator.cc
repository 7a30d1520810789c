#include "comm/communicator.h"

#include "core/device.h"
#include "core/error.h"

namespace orrery::comm {

DataPlane& Communicator::data(Device device) {
  for (const auto& [its, plane] : planes_) {
    if (its == device) return *plane;
  }
  // NCCL's are made here, from the control plane alone.
  if (!has_backend(device))
    fail("this build has no collectives for device {}: use cpu", device_name(device));
  return *planes_.emplace_back(device, make_data_plane(device)).second;
}

}  // namespace orrery::comm
