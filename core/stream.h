// The order of a device's work, and points in it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/context.h"
#include "core/upload_ring.h"

namespace orrery {

/// A point in a stream's work: done when all work queued before it has been done. One
/// that was only constructed was never recorded. Copies are the same event.
class Event {
 public:
  using Clock = std::chrono::steady_clock;

  bool is_recorded() const { return kind_ != Kind::kNone; }

 private:
  friend class Stream;
  enum class Kind : uint8_t { kNone, kOrder, kTime };

  Kind kind_ = Kind::kNone;
  Device device_;
  int64_t number_ = 0;  // on the debug device: how many its stream had recorded by then
  std::shared_ptr<void> cuda_;
  Clock::time_point time_;
};

/// An in-order queue of work on a device. Ops of the CPU and the debug device end
/// before they return, so there an event is done when it is recorded, and nothing ever
/// waits; what would be wrong on a device that runs behind the host is an Error all the
/// same. A CUDA device's work goes on behind the host. Thread-safe.
class Stream {
 public:
  /// An Error for a device that this build lacks.
  explicit Stream(Device device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device device() const { return device_; }
  /// Of a CUDA device, which becomes the calling thread's: the cudaStream_t.
  void* handle() const;

  /// The point behind all work that has been queued by now.
  Event record() { return record(Event::Kind::kOrder); }
  /// As record(), and the device notes when it gets there.
  Event record_time() { return record(Event::Kind::kTime); }

  /// Work that is queued from now on begins after the event. An Error for one that was
  /// not recorded, as there is nothing to wait for, or is of another device.
  void wait(const Event& event);
  /// Whether the event, of this stream, is done. Never waits.
  bool is_done(const Event& event) const;
  /// The host waits until all queued work has been done.
  void synchronize();
  /// Of a CUDA device: copies to its memory in order with the stream. `from` may change
  /// once this returns (core/upload_ring.h).
  void upload(void* to, const void* from, size_t bytes);

  /// The time between two events of record_time() on this stream. REQUIRES: both are
  /// known to be done, as synchronize() was called after the later one was recorded.
  /// The debug device checks that; it is what a device that runs behind the host needs.
  Event::Clock::duration between(const Event& from, const Event& to) const;

 private:
  Event record(Event::Kind kind);
  void check_time(const Event& event) const;

  const Device device_;
  void* cuda_ = nullptr;                                  // the cudaStream_t
  std::unique_ptr<UploadRing> uploads_;                   // where there is one
  std::atomic<int64_t> recorded_ = 0, synchronized_ = 0;  // events, on the debug device
};

/// The device's own stream, which its Contexts use. Lives until the program ends. An
/// Error for a device that this build lacks.
Stream& device_stream(Device device);

}  // namespace orrery
