// NVIDIA's runtime as the emulator has it. Work that a stream is given waits there
// until somebody waits for it; then what may run next is drawn among the streams. So
// host code that forgets to wait reads what was there before, and work of another
// stream that forgot to wait for an event comes too early.
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "core/closed_memory.h"
#include "tests/gpu/emulator/block.h"
#include "tests/gpu/emulator/cuda_runtime.h"
#include "tests/gpu/emulator/memory.h"

namespace simt {
namespace {

struct Event {
  bool timed = false;
  uint64_t recorded = 0, done = 0;
  std::chrono::steady_clock::time_point time;
};
using EventPointer = std::shared_ptr<Event>;

struct Operation {
  std::function<void()> run;
  EventPointer waits;  ///< must have been done `generation` times
  uint64_t generation = 0;
};
struct Stream {
  std::deque<Operation> queue;
};

struct Runtime {
  std::recursive_mutex mutex;
  std::vector<Stream*> streams;
  std::map<void*, size_t> sizes;
  std::map<const void*, int> dynamic_shared;
  size_t used = 0, limit = 0;
  /// Launches until a kernel does what a device does not survive; then all calls fail.
  int64_t launches_left = -1;
  int capability = 90;
};
constexpr auto kNever = static_cast<uint64_t>(-1);
/// Never destroyed: buffers of static objects are freed after main.
Runtime& runtime() {
  static auto* const it = [] {
    auto* const made = new Runtime;
    made->limit = number_of("ORRERY_EMULATOR_MEMORY_MB", 1024) << 20;
    made->capability = static_cast<int>(number_of("ORRERY_EMULATOR_CAPABILITY", 90));
    made->launches_left = static_cast<int64_t>(number_of("ORRERY_EMULATOR_LOSE_DEVICE", kNever));
    return made;
  }();
  return *it;
}

thread_local cudaError_t last_error = cudaSuccess;
cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

/// cudaErrorIllegalAddress once the device is lost.
cudaError_t health() {
  return runtime().launches_left == 0 ? result(cudaErrorIllegalAddress) : cudaSuccess;
}

bool may_run(const Stream& stream) {
  if (stream.queue.empty()) return false;
  const Operation& first = stream.queue.front();
  return first.waits == nullptr || first.waits->done >= first.generation;
}

/// Runs one piece of work of a stream that can go on; false where there is none.
bool run_one() {
  std::vector<Stream*> able;
  for (Stream* stream : runtime().streams) {
    if (may_run(*stream)) able.push_back(stream);
  }
  if (able.empty()) return false;
  Stream& stream = *able[able.size() == 1 ? 0 : draw(able.size())];
  const Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (operation.run) operation.run();
  return true;
}

/// Runs work, of any stream that can go on, until done().
template <class Done>
void run_until(const Done& done) {
  if (done()) return;
  const orrery::OpenMemory open;
  while (!done()) {
    if (!run_one()) fail_program("no stream can go on: they wait for one another's events");
  }
}

void run_all() {
  run_until([] {
    for (const Stream* stream : runtime().streams) {
      if (!stream->queue.empty()) return false;
    }
    return true;
  });
}

/// As many as a device's queue holds.
constexpr size_t kMostQueued = 1024;

/// The default stream's work begins after that of all others, and they after it: it is
/// done at once.
void give(Stream* stream, Operation operation) {
  if (stream == nullptr) {
    run_all();
    const orrery::OpenMemory open;
    if (operation.run) operation.run();
    return;
  }
  if (stream->queue.size() >= kMostQueued)
    run_until([&] { return stream->queue.size() < kMostQueued / 2; });
  stream->queue.push_back(std::move(operation));
}

Stream* as_stream(cudaStream_t stream) { return reinterpret_cast<Stream*>(stream); }
EventPointer& as_event(cudaEvent_t event) { return *reinterpret_cast<EventPointer*>(event); }

bool is_size(dim3 size, unsigned most_x, unsigned most_y, unsigned most_z) {
  return size.x >= 1 && size.y >= 1 && size.z >= 1 && size.x <= most_x && size.y <= most_y &&
         size.z <= most_z;
}

bool can_launch(const Config& config, const Launch& launch) {
  if (!is_size(config.block, kMostThreads, kMostThreads, 64) ||
      !is_size(config.grid, 0x7fffffff, 65535, 65535) ||
      config.block.x * config.block.y * config.block.z > kMostThreads)
    return false;
  if (config.shared <= kMostShared) return true;
  const auto& asked = runtime().dynamic_shared;
  const auto it = asked.find(launch.function);
  return launch.function != nullptr && it != asked.end() &&
         config.shared <= static_cast<size_t>(it->second);
}

}  // namespace

void enqueue(const Config& config, const Launch& launch) {
  const std::lock_guard lock(runtime().mutex);
  if (runtime().launches_left > 0) --runtime().launches_left;
  if (health() != cudaSuccess) {
    launch.destroy(launch.arguments);
    return;
  }
  if (!can_launch(config, launch)) {
    launch.destroy(launch.arguments);
    last_error =
        config.shared > kMostShared ? cudaErrorInvalidValue : cudaErrorInvalidConfiguration;
    return;
  }
  const std::shared_ptr<void> owner(launch.arguments, launch.destroy);
  give(as_stream(config.stream), {.run = [config, launch, owner] { run(config, launch); }});
}

cudaError_t allow_dynamic_shared(const void* function, int bytes) {
  const std::lock_guard lock(runtime().mutex);
  if (bytes < 0 || static_cast<size_t>(bytes) > kMostSharedAsked)
    return result(cudaErrorInvalidValue);
  runtime().dynamic_shared[function] = bytes;
  return cudaSuccess;
}

}  // namespace simt

using simt::as_event;
using simt::as_stream;
using simt::health;
using simt::result;
using simt::runtime;
using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
  }
  return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : result(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  *properties = {.name = "emulated",
                 .totalGlobalMem = runtime().limit,
                 .major = runtime().capability / 10,
                 .minor = runtime().capability % 10,
                 .multiProcessorCount = 132};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  *value = attribute == cudaDevAttrClockRate ? 1 : 132;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  const Lock lock(runtime().mutex);
  *data = nullptr;
  if (bytes == 0 || health() != cudaSuccess) return health();
  if (bytes > runtime().limit - runtime().used) return result(cudaErrorMemoryAllocation);
  void* const memory = orrery::allocate_closed(bytes);
  if (memory == nullptr) return result(cudaErrorMemoryAllocation);
  {
    const orrery::OpenMemory open;
    std::memset(memory, 0xff, bytes);  // NaN, for those who read before they write
  }
  runtime().used += bytes;
  runtime().sizes[memory] = bytes;
  simt::add_allocation(memory, bytes);
  *data = memory;
  return cudaSuccess;
}

cudaError_t cudaFree(void* data) {
  if (data == nullptr) return cudaSuccess;
  const Lock lock(runtime().mutex);
  const auto it = runtime().sizes.find(data);
  if (it == runtime().sizes.end()) return result(cudaErrorInvalidValue);
  simt::run_all();
  simt::remove_allocation(data);
  orrery::free_closed(data, it->second);
  runtime().used -= it->second;
  runtime().sizes.erase(it);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** data, size_t bytes) {
  *data = std::malloc(bytes);
  return *data != nullptr ? cudaSuccess : result(cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock lock(runtime().mutex);
  *total = runtime().limit;
  *free = runtime().limit - runtime().used;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (bytes == 0 || health() != cudaSuccess) return health();
  const auto is_right = [bytes](const void* data, bool device) {
    return device ? simt::is_device_memory(data, bytes) : !simt::touches_device_memory(data, bytes);
  };
  if (!is_right(to, kind != cudaMemcpyDeviceToHost) ||
      !is_right(from, kind != cudaMemcpyHostToDevice))
    return result(cudaErrorInvalidValue);
  simt::give(as_stream(stream), {.run = [=] { std::memcpy(to, from, bytes); }});
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (bytes == 0 || health() != cudaSuccess) return health();
  if (!simt::is_device_memory(to, bytes)) return result(cudaErrorInvalidValue);
  simt::give(as_stream(stream), {.run = [=] { std::memset(to, value, bytes); }});
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  const Lock lock(runtime().mutex);
  auto* const made = new simt::Stream;
  runtime().streams.push_back(made);
  *stream = reinterpret_cast<cudaStream_t>(made);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  cudaStreamSynchronize(stream);
  std::erase(runtime().streams, as_stream(stream));
  delete as_stream(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  const Lock lock(runtime().mutex);
  const simt::EventPointer& it = as_event(event);
  if (it->recorded > 0) simt::give(as_stream(stream), {.waits = it, .generation = it->recorded});
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (stream == nullptr) {
    simt::run_all();
  } else {
    simt::run_until([&] { return as_stream(stream)->queue.empty(); });
  }
  return health();
}
cudaError_t cudaDeviceSynchronize() {
  const Lock lock(runtime().mutex);
  simt::run_all();
  return health();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  auto made = std::make_shared<simt::Event>();
  made->timed = (flags & cudaEventDisableTiming) == 0;
  *event = reinterpret_cast<cudaEvent_t>(new simt::EventPointer(std::move(made)));
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete &as_event(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  const simt::EventPointer it = as_event(event);
  const uint64_t generation = ++it->recorded;
  simt::give(as_stream(stream), {.run = [it, generation] {
               it->done = std::max(it->done, generation);
               it->time = std::chrono::steady_clock::now();
             }});
  return health();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  const simt::EventPointer it = as_event(event);
  simt::run_until([&] { return it->done >= it->recorded; });
  return health();
}
/// Who asks again and again sees the work go on.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  const simt::EventPointer it = as_event(event);
  if (it->done >= it->recorded) return health();
  const orrery::OpenMemory open;
  simt::run_one();
  return it->done >= it->recorded ? cudaSuccess : result(cudaErrorNotReady);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock(runtime().mutex);
  const simt::Event &a = *as_event(from), &b = *as_event(to);
  if (!a.timed || !b.timed || a.recorded == 0 || b.recorded == 0)
    return result(cudaErrorInvalidResourceHandle);
  if (a.done < a.recorded || b.done < b.recorded) return result(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(b.time - a.time).count();
  return cudaSuccess;
}
