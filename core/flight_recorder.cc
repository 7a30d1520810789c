#include "core/flight_recorder.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "core/ascii.h"

namespace orrery {
namespace {

/// Events printed when a rank fails: enough for the last step or two, few enough for
/// hundreds of ranks.
constexpr size_t kPrinted = 16;

int64_t now_nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/// A line built without allocation or locale.
class Line {
 public:
  void add(std::string_view text) {
    const size_t part = std::min(text.size(), sizeof buffer_ - size_);
    std::memcpy(buffer_ + size_, text.data(), part);
    size_ += part;
  }
  void add(uint64_t number, size_t width = 1) {
    char digits[20];
    size_t count = 0;
    for (; number > 0 || count < width; number /= 10) {
      digits[count++] = "0123456789"[number % 10];
      if (count == sizeof digits) break;
    }
    std::reverse(digits, digits + count);
    add(std::string_view(digits, count));
  }
  std::string_view text() const { return {buffer_, size_}; }
  /// The whole line in one call, so that ranks' lines do not mix.
  void write(int fd) {
    if (size_ == sizeof buffer_) --size_;
    buffer_[size_++] = '\n';
    [[maybe_unused]] const ssize_t written = ::write(fd, buffer_, size_);
  }

 private:
  char buffer_[256];
  size_t size_ = 0;
};

const char* signal_text(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "SIGSEGV (a wrong address)";
    case SIGBUS:
      return "SIGBUS (a mapped file became shorter, or failing memory)";
    case SIGFPE:
      return "SIGFPE (a division by zero)";
    case SIGILL:
      return "SIGILL (an instruction that this CPU lacks)";
    default:
      return "SIGABRT";
  }
}

// What a signal handler needs and cannot be given.
constexpr int kFatalSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
struct sigaction g_previous[std::size(kFatalSignals)];
int g_rank = -1;
alignas(16) char g_stack[64 << 10];  // a stack of its own, for when the thread's has overflowed

void on_fatal_signal(int signal) {
  Line line;
  line.add("orrery: ");
  if (g_rank >= 0) {
    line.add("rank ");
    line.add(g_rank);
    line.add(": ");
  }
  line.add("ended by ");
  line.add(signal_text(signal));
  line.add("; please report it with the lines below");
  line.write(STDERR_FILENO);
  print_flight_recorder(g_rank);
  for (size_t i = 0; i < std::size(kFatalSignals); ++i) {
    if (kFatalSignals[i] == signal) sigaction(signal, &g_previous[i], nullptr);
  }
  raise(signal);  // taken when this handler returns
}

}  // namespace

void FlightRecorder::record(std::string_view text) {
  char bytes[kTextBytes] = {};
  const size_t size = std::min(text.size(), kTextBytes);
  for (size_t i = 0; i < size; ++i) bytes[i] = is_control(text[i]) ? ' ' : text[i];
  std::array<uint64_t, kWords> words;
  std::memcpy(words.data(), bytes, sizeof bytes);

  const int64_t now = now_nanoseconds();
  const std::lock_guard lock(mutex_);
  const uint64_t newest = newest_.load();
  if (newest > 0) {
    Slot& last = slots_[newest % kEvents];
    bool same = last.bytes.load() == size;
    for (size_t i = 0; same && i < kWords; ++i) same = last.text[i].load() == words[i];
    if (same) {
      last.times.store(last.times.load() + 1);
      last.nanoseconds.store(now);
      return;
    }
  }
  Slot& slot = slots_[(newest + 1) % kEvents];
  slot.number.store(0);
  slot.nanoseconds.store(now);
  slot.times.store(1);
  slot.bytes.store(size);
  for (size_t i = 0; i < kWords; ++i) slot.text[i].store(words[i]);
  slot.number.store(newest + 1);
  newest_.store(newest + 1);
}

bool FlightRecorder::read(uint64_t number, Copy& copy) const {
  const Slot& slot = slots_[number % kEvents];
  if (slot.number.load() != number) return false;
  copy.nanoseconds = slot.nanoseconds.load();
  copy.times = slot.times.load();
  copy.bytes = std::min<size_t>(slot.bytes.load(), kTextBytes);
  for (size_t i = 0; i < kWords; ++i) {
    const uint64_t word = slot.text[i].load();
    std::memcpy(copy.text + i * sizeof word, &word, sizeof word);
  }
  return slot.number.load() == number;
}

std::vector<FlightRecorder::Event> FlightRecorder::events() const {
  std::vector<Event> events;
  const uint64_t newest = newest_.load();
  const int64_t now = now_nanoseconds();
  Copy copy;
  for (uint64_t i = newest < kEvents ? 1 : newest - kEvents + 1; i <= newest; ++i) {
    if (!read(i, copy)) continue;
    events.push_back({std::max<int64_t>(now - copy.nanoseconds, 0) * 1e-9, copy.times,
                      std::string(copy.text, copy.bytes)});
  }
  return events;
}

void FlightRecorder::dump(int fd, std::string_view prefix, size_t count) const {
  const uint64_t newest = newest_.load();
  const uint64_t shown = std::min<uint64_t>({newest, count, kEvents});
  const int64_t now = now_nanoseconds();
  Copy copy;
  for (uint64_t i = newest - shown + 1; i <= newest; ++i) {
    if (!read(i, copy)) continue;
    const uint64_t milliseconds = std::max<int64_t>(now - copy.nanoseconds, 0) / 1'000'000;
    Line line;
    line.add(prefix);
    line.add(" ");
    line.add(milliseconds / 1000);
    line.add(".");
    line.add(milliseconds % 1000, 3);
    line.add(" s ago: ");
    line.add(std::string_view(copy.text, copy.bytes));
    if (copy.times > 1) {
      line.add(" (x ");
      line.add(copy.times);
      line.add(")");
    }
    line.write(fd);
  }
}

FlightRecorder& flight_recorder() {
  static FlightRecorder recorder;
  return recorder;
}

void print_flight_recorder(int rank) {
  Line prefix;
  prefix.add("  flight recorder");
  if (rank >= 0) {
    prefix.add(", rank ");
    prefix.add(rank);
  }
  prefix.add(":");
  flight_recorder().dump(STDERR_FILENO, prefix.text(), kPrinted);
}

void install_crash_handlers(int rank) {
  g_rank = rank;
  flight_recorder();  // made here: a handler must not be the first to ask for it
  stack_t stack{};
  stack.ss_sp = g_stack;
  stack.ss_size = sizeof g_stack;
  sigaltstack(&stack, nullptr);
  for (size_t i = 0; i < std::size(kFatalSignals); ++i) {
    struct sigaction action {};
    action.sa_handler = on_fatal_signal;
    action.sa_flags = SA_ONSTACK;
    sigaction(kFatalSignals[i], &action, &g_previous[i]);
  }
}

}  // namespace orrery
