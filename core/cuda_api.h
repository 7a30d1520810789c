// NVIDIA's runtime, for host code that launches nothing. Only CUDA builds (the CMake
// option ORRERY_CUDA) define what is declared here, so callers stand behind
// `if constexpr (kCudaBuilt)`. An Error of the runtime names the device, the call and
// what the runtime says of it. Thread-safe.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/context.h"
#include "core/device.h"

namespace orrery {

/// Whether this build has the CUDA backend.
#ifdef ORRERY_CUDA
inline constexpr bool kCudaBuilt = true;
#else
inline constexpr bool kCudaBuilt = false;
#endif

namespace cuda_api {

/// The devices that this process sees; 0 where there is no driver.
int device_count();
/// Its name, and what tells it from every other device of any host.
struct Identity {
  std::string model, uuid;
};
Identity identity(Device device);
/// Why this build's kernels do not run on it, as the end of a sentence that begins with
/// its name; empty where they do.
std::string misfit(Device device);

/// Why there is no bf16 on it (sums_dot16()), as the end of a sentence that begins with
/// its name; empty where there is.
std::string bf16_misfit(Device device);

/// Makes the device the calling thread's: what the runtime does next, it does there.
/// Everything below does so itself. Error where there is no such device, or one that
/// this build's kernels do not run on.
void use(Device device);

/// The Error of an op whose launch or call of the runtime failed, with a cudaError_t,
/// on the calling thread's device.
[[noreturn]] void fail_op(const char* op, int error);

/// Floating-point operations per second (2 per multiply-add) at the device's highest
/// clock: of f32 without tensor cores, and of bf16 on them (dense).
double f32_peak(Device device);
double bf16_peak(Device device);

DeviceMemory memory(Device device);
/// Not initialised, 256-byte aligned. Null when there is no memory.
void* allocate(Device device, size_t bytes);
/// Waits for the work that is under way. Never fails: at the end of the program the
/// runtime may be gone already.
void release(Device device, void* data) noexcept;

/// An in-order queue of work.
void* make_stream(Device device);
/// Waits for its work.
void release_stream(Device device, void* stream) noexcept;
/// The host waits until the stream's work has been done.
void synchronize(Device device, void* stream);

/// In order with the stream; done when it returns.
void download(Device device, void* stream, void* to, const void* from, size_t bytes);
/// Host memory that the device reads by itself. Error where the system locks none.
void* allocate_host(Device device, size_t bytes);
void release_host(Device device, void* data) noexcept;
/// Copies from memory of allocate_host() in order with the stream, which reads it when
/// it gets there: until then it must stay as it is.
void queue_upload(Device device, void* stream, void* to, const void* from, size_t bytes);
/// Zeroes memory in order with the stream.
void zero(Device device, void* stream, void* data, size_t bytes);

/// The point behind the work that the stream has been given; with its time, if `timed`.
std::shared_ptr<void> record(Device device, void* stream, bool timed);
/// Whether the event is done. Never waits.
bool is_done(Device device, void* event);
/// The host waits until the event is done.
void wait_for(Device device, void* event);
/// What the stream is given from now on begins after the event.
void wait(Device device, void* stream, void* event);
/// REQUIRES: both were recorded with their times, and are done.
std::chrono::nanoseconds between(Device device, void* from, void* to);

}  // namespace cuda_api
}  // namespace orrery
