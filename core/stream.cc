#include "core/stream.h"

#include <array>
#include <mutex>

#include "core/cuda_api.h"
#include "core/device.h"
#include "core/error.h"

namespace orrery {

Stream::Stream(Device device) : device_(device) {
  if (device.type != DeviceType::kCuda) return;
  if constexpr (kCudaBuilt) {
    cuda_ = cuda_api::make_stream(device);
    uploads_ = std::make_unique<UploadRing>(device, cuda_);
  } else {
    fail_no_backend(device);
  }
}

Stream::~Stream() {
  if constexpr (kCudaBuilt) {
    if (cuda_ != nullptr) cuda_api::release_stream(device_, cuda_);
  }
}

void* Stream::handle() const {
  ORRERY_CHECK(cuda_ != nullptr, "a stream of {} has no handle", device_name(device_));
  if constexpr (kCudaBuilt) cuda_api::use(device_);
  return cuda_;
}

Event Stream::record(Event::Kind kind) {
  Event event;
  event.kind_ = kind;
  event.device_ = device_;
  if (device_.type == DeviceType::kDebug) event.number_ = ++recorded_;
  if constexpr (kCudaBuilt) {
    if (cuda_ != nullptr) {
      event.cuda_ = cuda_api::record(device_, cuda_, kind == Event::Kind::kTime);
      return event;
    }
  }
  if (kind == Event::Kind::kTime) event.time_ = Event::Clock::now();
  return event;
}

void Stream::wait(const Event& event) {
  ORRERY_CHECK(event.is_recorded(), "a stream waits for an event that was not recorded");
  ORRERY_CHECK(event.device_ == device_, "a stream of {} waits for an event of {}",
               device_name(device_), device_name(event.device_));
  if constexpr (kCudaBuilt) {
    if (cuda_ != nullptr) cuda_api::wait(device_, cuda_, event.cuda_.get());
  }
}

bool Stream::is_done(const Event& event) const {
  ORRERY_CHECK(event.is_recorded() && event.device_ == device_,
               "whether an event is done that was not recorded on a stream of {}",
               device_name(device_));
  if constexpr (kCudaBuilt) {
    if (cuda_ != nullptr) return cuda_api::is_done(device_, event.cuda_.get());
  }
  return true;
}

void Stream::synchronize() {
  const int64_t now = recorded_;
  if constexpr (kCudaBuilt) {
    if (cuda_ != nullptr) cuda_api::synchronize(device_, cuda_);
  }
  // Never backwards: another thread may have synchronized later than this one looked.
  int64_t before = synchronized_;
  while (before < now && !synchronized_.compare_exchange_weak(before, now)) {
  }
}

void Stream::upload(void* to, const void* from, size_t bytes) {
  ORRERY_CHECK(uploads_ != nullptr, "an upload by a stream of {}", device_name(device_));
  uploads_->upload(to, from, bytes);
}

Event::Clock::duration Stream::between(const Event& from, const Event& to) const {
  check_time(from);
  check_time(to);
  if constexpr (kCudaBuilt) {
    if (cuda_ != nullptr) return cuda_api::between(device_, from.cuda_.get(), to.cuda_.get());
  }
  return to.time_ - from.time_;
}

void Stream::check_time(const Event& event) const {
  ORRERY_CHECK(event.kind_ == Event::Kind::kTime && event.device_ == device_,
               "the time of an event that was not recorded with its time on a stream of {}",
               device_name(device_));
  ORRERY_CHECK(event.number_ <= synchronized_,
               "the time of an event is read before the stream was synchronized");
}

namespace {

/// A CUDA device's own stream, made on first use and never destroyed. Other builds have
/// no use for it.
[[maybe_unused]] Stream& cuda_stream(Device device) {
  static std::array<std::atomic<Stream*>, kMostCudaDevices> streams{};
  ORRERY_CHECK(device.index >= 0 && device.index < kMostCudaDevices, "device {}",
               device_name(device));
  std::atomic<Stream*>& stream = streams[device.index];
  if (stream.load() == nullptr) {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    if (stream.load() == nullptr) stream = new Stream(device);
  }
  return *stream.load();
}

}  // namespace

Stream& device_stream(Device device) {
  // Never destroyed: Contexts of static objects are used after main.
  static auto* const cpu = new Stream({DeviceType::kCpu});
  static auto* const debug = new Stream({DeviceType::kDebug});
  switch (device.type) {
    case DeviceType::kCpu:
      return *cpu;
    case DeviceType::kDebug:
      return *debug;
    case DeviceType::kCuda:
      if constexpr (kCudaBuilt) return cuda_stream(device);
      break;
  }
  fail_no_backend(device);
}

Stream& Context::stream() const { return device_stream(device); }

}  // namespace orrery
