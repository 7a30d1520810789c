// Remembers the last things that this process did, for the moment it fails: a fixed
// ring of short texts with their times. Recording costs some hundred nanoseconds and
// leaves no memory allocated. Thread-safe. The ring can be read at any time and without
// a lock, by a signal handler too; an event that is being written is left out.
//
// A process has one ring, reached through record_event, because a handler of SIGSEGV is
// given nothing to find another one by.
#pragma once

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <iterator>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace orrery {

class FlightRecorder {
 public:
  static constexpr size_t kEvents = 64;
  static constexpr size_t kTextBytes = 96;

  /// Keeps the first kTextBytes of `text` (control characters become spaces). When the
  /// text equals the newest event's, that event is counted once more instead.
  void record(std::string_view text);

  struct Event {
    double seconds_ago = 0;  ///< when it was last recorded
    uint64_t times = 1;
    std::string text;
  };
  /// Oldest first.
  std::vector<Event> events() const;

  /// Writes the newest `count` events, oldest first, one per line with "`prefix` "
  /// before it. For signal handlers: calls nothing but clock_gettime and write.
  void dump(int fd, std::string_view prefix, size_t count) const;

 private:
  static constexpr size_t kWords = kTextBytes / sizeof(uint64_t);
  struct Slot {
    std::atomic<uint64_t> number = 0;  // the event's, from 1; 0: empty or being written
    std::atomic<int64_t> nanoseconds = 0;
    std::atomic<uint64_t> times = 0;
    std::atomic<uint32_t> bytes = 0;
    std::array<std::atomic<uint64_t>, kWords> text = {};
  };
  struct Copy {
    int64_t nanoseconds;
    uint64_t times;
    size_t bytes;
    char text[kTextBytes];
  };
  bool read(uint64_t number, Copy& copy) const;

  std::mutex mutex_;  // one writer at a time
  std::array<Slot, kEvents> slots_;
  std::atomic<uint64_t> newest_ = 0;
};

/// The process's recorder.
FlightRecorder& flight_recorder();

template <class... Args>
void record_event(fmt::format_string<Args...> format, Args&&... args) {
  std::array<char, FlightRecorder::kTextBytes> text;
  const auto end =
      fmt::format_to_n(text.begin(), text.size(), format, std::forward<Args>(args)...).out;
  flight_recorder().record({text.begin(), end});
}

/// Prints the newest events on stderr, with the rank's number unless `rank` < 0.
/// Async-signal-safe.
void print_flight_recorder(int rank);

/// Makes SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT print one line and the recorder
/// before they do what they did before this call. Call it once per process, after
/// libraries have installed handlers of their own.
void install_crash_handlers(int rank);

}  // namespace orrery
