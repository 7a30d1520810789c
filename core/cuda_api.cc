#include "core/cuda_api.h"

#include <cuda_runtime.h>

#include "core/cuda_capability.h"
#include "core/error.h"
#include "core/file.h"

namespace orrery::cuda_api {
namespace {

/// What the kernels are compiled for (cmake/cuda.cmake), in CMake's words.
#ifdef ORRERY_CUDA_ARCHITECTURES
constexpr const char* kArchitectures = ORRERY_CUDA_ARCHITECTURES;
#else
constexpr const char* kArchitectures = "80-real 90";  // the default
#endif
/// The version of the runtime that is linked; 0 where there is none.
#ifdef CUDART_VERSION
constexpr int kRuntime = CUDART_VERSION;
#else
constexpr int kRuntime = 0;
#endif

/// After some errors, such as a kernel's access to memory that is not its own, every
/// call fails until the process ends; they show at whatever call comes next.
bool is_lost() {
  const bool lost = cudaDeviceSynchronize() != cudaSuccess;
  cudaGetLastError();
  return lost;
}

[[noreturn]] void fail_call(Device device, const char* call, cudaError_t result) {
  const bool is_gone = is_lost();
  const char* const lost =
      is_gone ? ", by work that was queued before; this process has lost the device, and the "
                "last checkpoint is whole: start again from it (with CUDA_LAUNCH_BLOCKING=1 in "
                "the environment the error names the op)"
              : "";
  const std::string text = fmt::format("device {}: {}: {}{}", device_name(device), call,
                                       cudaGetErrorString(result), lost);
  // Another attempt may do: no error of the user's, wherever it happens.
  if (is_gone) throw SystemError(text);
  throw Error(text);
}

void check(Device device, const char* call, cudaError_t result) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // an error that was reported is not the next call's
  fail_call(device, call, result);
}

cudaDeviceProp properties_of(Device device) {
  cudaDeviceProp properties;
  check(device, "cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, device.index));
  return properties;
}

/// Clocks of all multiprocessors together in a second, at the highest rate.
double multiprocessor_clocks(Device device) {
  int processors = 0, kilohertz = 0;
  check(device, "cudaDeviceGetAttribute",
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device.index));
  check(device, "cudaDeviceGetAttribute",
        cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, device.index));
  return 1e3 * processors * kilohertz;
}

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t as_event(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

Identity identity(Device device) {
  const cudaDeviceProp properties = properties_of(device);
  Identity found{.model = properties.name, .uuid = ""};
  for (const char byte : properties.uuid.bytes) {
    const auto bits = static_cast<unsigned char>(byte);
    found.uuid += fmt::format("{:02x}", bits);
  }
  return found;
}

/// Every capability that the kernels run on gives the same bits in f32: they are IEEE
/// arithmetic in an order that is written down, and tools/lint/ptx_lint.py holds each
/// architecture's code to it.
std::string misfit(Device device) {
  const cudaDeviceProp properties = properties_of(device);
  const CudaCapability capability{properties.major, properties.minor};
  if (runs_on(kArchitectures, capability)) return "";
  return not_built_for(kArchitectures, properties.name, capability);
}

std::string bf16_misfit(Device device) {
  const cudaDeviceProp properties = properties_of(device);
  const CudaCapability capability{properties.major, properties.minor};
  return sums_dot16(capability) ? "" : other_bf16(properties.name, capability);
}

void use(Device device) {
  thread_local int used = -1;
  if (device.index == used) return;
  const cudaError_t result = cudaSetDevice(device.index);
  if (result != cudaSuccess) {
    cudaGetLastError();
    int driver = 0;
    cudaDriverGetVersion(&driver);
    fail_usage("{}",
               no_cuda_device(device_name(device), cudaGetErrorString(result), driver, kRuntime));
  }
  if (const std::string why = misfit(device); !why.empty())
    fail_usage("device {} {}: use another device (nvidia-smi lists them), or cpu",
               device_name(device), why);
  used = device.index;
}

void fail_op(const char* op, int error) {
  Device device{DeviceType::kCuda};
  cudaGetDevice(&device.index);
  fail_call(device, op, static_cast<cudaError_t>(error));
}

double f32_peak(Device device) {
  const cudaDeviceProp properties = properties_of(device);
  const bool half = properties.major == 8 && properties.minor == 0;
  return 2 * (half ? 64 : 128) * multiprocessor_clocks(device);
}

double bf16_peak(Device device) {
  const bool blackwell = properties_of(device).major == 10;
  return 2 * (blackwell ? 4096 : 2048) * multiprocessor_clocks(device);
}

DeviceMemory memory(Device device) {
  use(device);
  DeviceMemory found;
  check(device, "cudaMemGetInfo", cudaMemGetInfo(&found.free, &found.total));
  return found;
}

void* allocate(Device device, size_t bytes) {
  use(device);
  void* data = nullptr;
  const cudaError_t result = cudaMalloc(&data, bytes);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(device, "cudaMalloc", result);
  return data;
}

void release(Device /*device*/, void* data) noexcept { cudaFree(data); }

void* make_stream(Device device) {
  use(device);
  cudaStream_t stream = nullptr;
  check(device, "cudaStreamCreate", cudaStreamCreate(&stream));
  return stream;
}

void release_stream(Device /*device*/, void* stream) noexcept {
  cudaStreamSynchronize(as_stream(stream));
  cudaStreamDestroy(as_stream(stream));
}

void synchronize(Device device, void* stream) {
  use(device);
  check(device, "cudaStreamSynchronize", cudaStreamSynchronize(as_stream(stream)));
}

void download(Device device, void* stream, void* to, const void* from, size_t bytes) {
  use(device);
  check(device, "a download's cudaMemcpyAsync",
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, as_stream(stream)));
  check(device, "a download's cudaStreamSynchronize", cudaStreamSynchronize(as_stream(stream)));
}

void* allocate_host(Device device, size_t bytes) {
  use(device);
  void* data = nullptr;
  check(device, "cudaMallocHost", cudaMallocHost(&data, bytes));
  return data;
}

void release_host(Device /*device*/, void* data) noexcept { cudaFreeHost(data); }

void queue_upload(Device device, void* stream, void* to, const void* from, size_t bytes) {
  use(device);
  check(device, "an upload's cudaMemcpyAsync",
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, as_stream(stream)));
}

void zero(Device device, void* stream, void* data, size_t bytes) {
  use(device);
  check(device, "cudaMemsetAsync", cudaMemsetAsync(data, 0, bytes, as_stream(stream)));
}

std::shared_ptr<void> record(Device device, void* stream, bool timed) {
  use(device);
  cudaEvent_t event = nullptr;
  check(device, "cudaEventCreate",
        cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming));
  std::shared_ptr<void> owner(event, [](void* e) { cudaEventDestroy(as_event(e)); });
  check(device, "cudaEventRecord", cudaEventRecord(event, as_stream(stream)));
  return owner;
}

bool is_done(Device device, void* event) {
  use(device);
  const cudaError_t result = cudaEventQuery(as_event(event));
  if (result == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(device, "cudaEventQuery", result);
  return true;
}

void wait_for(Device device, void* event) {
  use(device);
  check(device, "cudaEventSynchronize", cudaEventSynchronize(as_event(event)));
}

void wait(Device device, void* stream, void* event) {
  use(device);
  check(device, "cudaStreamWaitEvent", cudaStreamWaitEvent(as_stream(stream), as_event(event), 0));
}

std::chrono::nanoseconds between(Device device, void* from, void* to) {
  use(device);
  float milliseconds = 0;
  check(device, "cudaEventElapsedTime",
        cudaEventElapsedTime(&milliseconds, as_event(from), as_event(to)));
  return std::chrono::round<std::chrono::nanoseconds>(
      std::chrono::duration<double, std::milli>(milliseconds));
}

}  // namespace orrery::cuda_api
