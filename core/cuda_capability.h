// Which GPUs a build's kernels run on.
#pragma once

#include <string>
#include <string_view>

namespace orrery {

/// Compute capability, by which NVIDIA tells one kind of GPU from another.
struct CudaCapability {
  int major = 0, minor = 0;
};

/// Whether kernels that were compiled for `architectures` run on a device. The names
/// are CMake's, with spaces or semicolons between: "80-real" (code, which runs on 8.0
/// and later 8.x), "90-virtual" (PTX, from which the driver makes code of 9.0 and all
/// that came after), "90" (both), and with an "a" (90a) what runs on that one alone.
/// Error for another word.
bool runs_on(std::string_view architectures, CudaCapability device);

/// Why this build's kernels do not run on a device, as the end of a sentence that
/// begins with its name.
std::string not_built_for(std::string_view architectures, std::string_view model,
                          CudaCapability capability);

/// Whether its tensor cores sum as the class dot16-rz25 says (docs/numerics.md): those
/// of H100, H200 and B200 do, and of no other it is known.
bool sums_dot16(CudaCapability capability);

/// Why a device has no bf16 here, as the end of a sentence that begins with its name.
std::string other_bf16(std::string_view model, CudaCapability capability);

/// What a user is told where the runtime finds no device to begin with. `reason` is the
/// runtime's; `driver` and `runtime` are versions as it writes them (12040 is 12.4), 0
/// for a driver that is not there.
std::string no_cuda_device(std::string_view device, std::string_view reason, int driver,
                           int runtime);

}  // namespace orrery
