#include "core/stream.h"

#include "core/device.h"
#include "core/error.h"

namespace orrery {

Stream::Stream(Device device) : device_(device) {
  if (device.type == DeviceType::kCuda) fail_no_backend(device);
}

Event Stream::record(Event::Kind kind) {
  Event event;
  event.kind_ = kind;
  event.device_ = device_;
  if (device_.type == DeviceType::kDebug) event.number_ = ++recorded_;
  if (kind == Event::Kind::kTime) event.time_ = Event::Clock::now();
  return event;
}

void Stream::wait(const Event& event) {
  ORRERY_CHECK(event.is_recorded(), "a stream waits for an event that was not recorded");
  ORRERY_CHECK(event.device_ == device_, "a stream of {} waits for an event of {}",
               device_name(device_), device_name(event.device_));
}

void Stream::synchronize() {
  const int64_t now = recorded_;
  // Never backwards: another thread may have synchronized later than this one looked.
  int64_t before = synchronized_;
  while (before < now && !synchronized_.compare_exchange_weak(before, now)) {
  }
}

Event::Clock::duration Stream::between(const Event& from, const Event& to) const {
  check_time(from);
  check_time(to);
  return to.time_ - from.time_;
}

void Stream::check_time(const Event& event) const {
  ORRERY_CHECK(event.kind_ == Event::Kind::kTime && event.device_ == device_,
               "the time of an event that was not recorded with its time on a stream of {}",
               device_name(device_));
  ORRERY_CHECK(event.number_ <= synchronized_,
               "the time of an event is read before the stream was synchronized");
}

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
      break;
  }
  fail_no_backend(device);
}

Stream& Context::stream() const { return device_stream(device); }

}  // namespace orrery
