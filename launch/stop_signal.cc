#include "launch/stop_signal.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <string_view>

namespace orrery::launch {
namespace {

/// Two signals within this time are one request.
constexpr int64_t kSecondRequestNs = 1'000'000'000;

// A signal handler can reach nothing but globals.
std::atomic<bool> g_stop = false;
std::atomic<int64_t> g_first_ns = 0;  // when the first other than SIGUSR1 came; 0: none has
std::atomic<bool> g_announce = false;
static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

std::string_view signal_name(int signal) {
  switch (signal) {
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGHUP:
      return "SIGHUP";
    default:
      return "SIGUSR1";
  }
}

/// One write(), which is all that a handler may call.
void say(std::string_view before, int signal, std::string_view after) {
  char line[160];
  size_t size = 0;
  for (const std::string_view part : {before, signal_name(signal), after}) {
    if (size + part.size() > sizeof line) return;
    std::memcpy(line + size, part.data(), part.size());
    size += part.size();
  }
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line, size);
}

void on_signal(int signal) {
  const int saved = errno;
  switch (note_stop_signal(signal)) {
    case StopRequest::kFirst:
      // After a crash mpirun sends SIGTERM to the ranks that are left. So the line
      // names the signal: perhaps no person has asked for a stop.
      if (g_announce)
        say("orrery: asked to stop by ", signal,
            ": saving, then the end (again after a second: at once)\n");
      break;
    case StopRequest::kAgain:
      break;
    case StopRequest::kNow:
      say("orrery: asked to stop again, by ", signal,
          ": ending at once; checkpoints on disk stay whole\n");
      // The process does not end by the signal itself, because the first process of a
      // container would not die of it.
      ::_exit(128 + signal);
  }
  errno = saved;
}

bool is_ignored(int signal) {
  struct sigaction now {};
  return sigaction(signal, nullptr, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 &&
         now.sa_handler == SIG_IGN;
}

}  // namespace

void handle_stop_signals(void (*handler)(int)) {
  for (const int signal : kStopSignals) {
    if (signal == SIGHUP && is_ignored(signal)) continue;
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  }
}

void reset_stop_signals() {
  for (const int signal : kStopSignals) {
    if (!is_ignored(signal)) std::signal(signal, SIG_DFL);
  }
}

StopRequest note_stop_signal(int signal) {
  const StopRequest first = g_stop.exchange(true) ? StopRequest::kAgain : StopRequest::kFirst;
  if (signal == SIGUSR1) return first;
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  const int64_t now = int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  int64_t before = 0;
  if (g_first_ns.compare_exchange_strong(before, now)) return first;
  return now - before >= kSecondRequestNs ? StopRequest::kNow : StopRequest::kAgain;
}

void install_stop_handlers(bool announce) {
  g_announce = announce;
  handle_stop_signals(on_signal);
}

void catch_early_stop() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
}

bool stop_requested() { return g_stop; }

bool agree_to_stop(comm::Communicator& comm) {
  double flag[1] = {stop_requested() ? 1.0 : 0.0};
  comm.all_reduce_max(flag);
  return flag[0] > 0;
}

}  // namespace orrery::launch
