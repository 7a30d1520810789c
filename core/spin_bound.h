// How long a thread spins before it sleeps: learned from its own waits. No
// thread-safety: one thread's own.
//
// A bound that was too small by little grows, so that gaps of a usual length are spun
// through; after a wait that no spin would have outlasted it halves. But where a thread
// spins on the very CPU that the one it waits for needs, spinning is what makes the
// wait long, and the bound seems too small each time. So a bound that has grown and was
// not enough again is taken back, and not tried for a while.
#pragma once

#include <algorithm>
#include <chrono>

namespace orrery {

class SpinBound {
 public:
  using Duration = std::chrono::steady_clock::duration;

  // bench/team_bench.cc and bench/busy.sh show what these do.
  static constexpr Duration kMost =
      std::chrono::microseconds(500);  // gaps between the loops of a step: up to 250
  static constexpr Duration kLeast =
      std::chrono::microseconds(10);       // less than it costs to sleep and be woken
  static constexpr int kMostPenalty = 63;  // sleeps between two trials of a longer spin

  Duration get() const { return bound_; }

  /// What was waited for came while spinning, after so long.
  void spun(Duration waited) {
    trying_ = false;
    penalty_ /= 2;
    if (2 * waited > bound_) bound_ = std::min(2 * bound_, kMost);
  }

  /// It came after the bound, while sleeping; so long after the wait had begun.
  void slept(Duration waited) {
    if (trying_) {
      trying_ = false;
      penalty_ = std::min(2 * penalty_ + 1, kMostPenalty);
      untried_ = penalty_;
      bound_ = kLeast;
    } else if (waited > kMost) {
      bound_ = std::max(bound_ / 2, kLeast);
    } else if (untried_ > 0) {
      --untried_;
    } else {
      trying_ = true;
      bound_ = std::min(2 * waited, kMost);
    }
  }

 private:
  Duration bound_ = kMost;
  bool trying_ = false;  // the bound has just grown after a sleep
  int penalty_ = 0;      // sleeps without such a trial after one that failed
  int untried_ = 0;      // how many of them are left
};

}  // namespace orrery
