// The last things that this process did, for the moment it fails: a fixed ring of short
// texts with their times. Recording costs some hundred nanoseconds and allocates
// nothing that stays. Thread-safe. The ring can be read at any time, also by a signal
// handler, without a lock: an event that is being written is left out.
//
// One ring a process, reached through record_event: a handler of SIGSEGV is given
// nothing to find it by.
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

  /// Keeps the first kTextBytes of `text` (control characters become spaces). A text
  /// equal to the newest event's is counted there and takes no place of its own.
  void record(std::string_view text);

  struct Event {
    double seconds_ago = 0;  ///< since it was last recorded
    uint64_t times = 1;
    std::string text;
  };
  /// Oldest first.
  std::vector<Event> events() const;

  /// Writes the newest `count` events, oldest first, one line each with "`prefix` "
  /// before it. Calls nothing but clock_gettime and write: for signal handlers.
  void dump(int fd, std::string_view prefix, size_t count) const;

 private:
  static constexpr size_t kWords = kTextBytes / sizeof(uint64_t);
  struct Slot {
    std::atomic<uint64_t> number = 0;  // of the event, from 1; 0: empty or being written
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
  flight_recorder().record({text.data(), static_cast<size_t>(end - text.begin())});
}

/// Prints the newest events on stderr; `rank` < 0: without one. Async-signal-safe.
void print_flight_recorder(int rank);

/// SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT print one line and the recorder, then do
/// what they did before this call. Once a process, after libraries have installed
/// handlers of their own.
void install_crash_handlers(int rank);

}  // namespace orrery
