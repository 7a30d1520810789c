#include "comm/communicator.h"

#include "core/device.h"
#include "core/error.h"

namespace orrery::comm {

DataPlane& Communicator::data(Device device) {
  for (const auto& [its, plane] : planes_) {
    if (its == device) return *plane;
  }
  if (!has_backend(device))
    fail("this build has no collectives for device {}: use cpu", device_name(device));
  std::unique_ptr<DataPlane> plane;
  if (plane_maker_) plane = plane_maker_(*this, device);
  if (!plane) plane = make_data_plane(device);
  return *planes_.emplace_back(device, std::move(plane)).second;
}

}  // namespace orrery::comm
