// How long a thread spins before it sleeps, learned from the thread's own waits. Not
// thread-safe: each thread has its own.
//
// A bound that was a little too small grows, so that the thread spins through gaps of a
// usual length. After a wait that no spin would have outlasted, the bound halves. But
// where a thread spins on the very CPU that the other thread needs, spinning itself
// makes the wait long, and the bound seems too small each time. So a bound that has
// grown and was again not enough is taken back, and not tried for a while.
#pragma once

#include <algorithm>
#include <chrono>

namespace orrery {

class SpinBound {
 public:
  using Duration = std::chrono::steady_clock::duration;

  // bench/team_bench.cc and bench/busy.sh show what these bounds do.
  /// The gaps between the loops of a step take up to 250 microseconds.
  static constexpr Duration kMaxBound = std::chrono::microseconds(500);
  /// Less than it costs to sleep and be woken.
  static constexpr Duration kMinBound = std::chrono::microseconds(10);
  /// Sleeps between two trials of a longer spin, at most.
  static constexpr int kMaxPenalty = 63;

  Duration get() const { return bound_; }

  /// The wait ended while spinning, after `waited`.
  void spun(Duration waited) {
    trying_ = false;
    penalty_ /= 2;
    if (2 * waited > bound_) bound_ = std::min(2 * bound_, kMaxBound);
  }

  /// The wait ended while sleeping, `waited` after its beginning.
  void slept(Duration waited) {
    if (trying_) {
      trying_ = false;
      penalty_ = std::min(2 * penalty_ + 1, kMaxPenalty);
      untried_ = penalty_;
      bound_ = kMinBound;
    } else if (waited > kMaxBound) {
      bound_ = std::max(bound_ / 2, kMinBound);
    } else if (untried_ > 0) {
      --untried_;
    } else {
      trying_ = true;
      bound_ = std::min(2 * waited, kMaxBound);
    }
  }

 private:
  Duration bound_ = kMaxBound;
  bool trying_ = false;  // the bound has just grown after a sleep
  int penalty_ = 0;      // sleeps without a trial after a trial that failed
  int untried_ = 0;      // how many of those sleeps are left
};

}  // namespace orrery
