// Waiting for other ranks: pauses that leave the core to those that work, and what a
// rank waits in, for a watchdog to read.
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace orrery::comm {

/// The operation that a rank waits in.
struct Waiting {
  const char* operation = nullptr;  ///< null when the rank does not wait
  double seconds = 0;
};

using Clock = std::chrono::steady_clock;

/// The pauses of a polling loop. It yields for as long as a peer that keeps pace would
/// take, and then sleeps for times that grow to a millisecond, so that a rank that
/// waits leaves its core to those that work.
class Backoff {
 public:
  void pause() {
    if (!sleeping_) {
      sched_yield();
      sleeping_ = Clock::now() - begin_ > std::chrono::microseconds(200);
      return;
    }
    std::this_thread::sleep_for(sleep_);
    sleep_ = std::min(sleep_ * 5 / 4, std::chrono::nanoseconds(std::chrono::milliseconds(1)));
  }

 private:
  Clock::time_point begin_ = Clock::now();
  bool sleeping_ = false;
  std::chrono::nanoseconds sleep_ = std::chrono::microseconds(10);
};

/// The operation that a rank waits in, and since when. The thread that waits writes it;
/// a watchdog's thread reads it. A communicator shares it with those split from it,
/// because a rank waits in only one of them at a time.
class WaitState {
 public:
  class Scope {
   public:
    Scope(WaitState& state, const char* operation) : state_(state) {
      state_.since_ = Clock::now().time_since_epoch().count();
      state_.operation_ = operation;
    }
    ~Scope() { state_.operation_ = nullptr; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    WaitState& state_;
  };
  Waiting get() const {
    const char* operation = operation_;
    if (operation == nullptr) return {};
    const Clock::duration waited = Clock::now().time_since_epoch() - Clock::duration(since_.load());
    return {operation, std::chrono::duration<double>(waited).count()};
  }

 private:
  std::atomic<const char*> operation_ = nullptr;
  std::atomic<Clock::rep> since_ = 0;
};

/// Calls done() until it says so. Waits in `operation` meanwhile.
template <class Done>
void wait_until(WaitState& state, const char* operation, Done&& done) {
  const WaitState::Scope scope(state, operation);
  for (Backoff backoff; !done(); backoff.pause()) {
  }
}

}  // namespace orrery::comm
