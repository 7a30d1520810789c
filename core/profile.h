// Where the time of a step goes, by phase and op: calls, seconds, floating-point
// operations and bytes.
//
// A Profile is reached through Context::profile; without one (the default) a scope is a
// branch. With one it records two events on the device's stream (core/stream.h), so the
// time is the device's, which may run behind the host. Scopes read and write only their
// Profile: no result depends on them.
//
//   Phase: a part of the step. Phases nest; time belongs to the innermost phase that is
//          open, so the phases' times add up exactly to the time between start() and
//          stop(). Time outside every phase belongs to kNoPhase.
//   Op:    one call of a kernel. An op inside another adds its operations and bytes to
//          the outermost one, and only that one is timed. Ops do not overlap, so within
//          a phase their times add up to at most the phase's time.
//
// Operations are counted as the formula of the arithmetic states them: a multiply-add
// counts 2, causal attention counts the pairs that a query sees, and what a backward
// pass recomputes is not counted. Bytes count each operand read once and each result
// written once: the traffic of a call if the caches were empty before it and held
// everything during it.
//
// Names are string literals. Not thread-safe: only the thread that runs a step's ops
// may open scopes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/context.h"
#include "core/stream.h"

namespace orrery {

class Profile {
 public:
  using Clock = Event::Clock;
  static constexpr const char* kNoPhase = "rest";

  struct Op {
    const char* name;
    int64_t calls = 0;
    Clock::duration time{};
    double flops = 0, bytes = 0;
  };
  struct Phase {
    const char* name;
    Clock::duration time{};
    std::vector<Op> ops;  ///< in the order in which they were first met
  };

  /// Of the work on `stream`, which must outlive the profile.
  explicit Profile(Stream& stream) : stream_(stream) {}

  /// Measures from now until stop(), in addition to what was measured before. No scope
  /// may be open when either is called. stop() waits for the stream.
  void start();
  void stop();
  /// As of the last stop(), in the order in which they were first met; first kNoPhase.
  const std::vector<Phase>& phases() const { return phases_; }

 private:
  friend class ProfilePhaseScope;
  friend class ProfileOpScope;

  /// Time between two events: an op's, or (without a name) some of a phase's.
  struct Interval {
    size_t phase;
    Op op;
    Event begin, end;
  };

  size_t open_phase(const Context& ctx, const char* name);  ///< returns the one open before
  void close_phase(size_t previous);
  void open_op(const char* name, double flops, double bytes);
  void close_op();
  void charge();  ///< gives the time since the last change of phase to the open phase
  void add(const Interval& interval);
  void read_intervals();  ///< waits for the stream and adds up what it has measured

  Stream& stream_;
  bool running_ = false;
  std::vector<Interval> intervals_;  // not read yet
  std::vector<Phase> phases_{Phase{kNoPhase}};
  size_t phase_ = 0;
  Event phase_since_;
  int op_depth_ = 0;
  Op op_{nullptr};  ///< the op that is open
  Event op_since_;
};

class ProfilePhaseScope {
 public:
  ProfilePhaseScope(const Context& ctx, const char* name) : profile_(ctx.profile) {
    if (profile_ != nullptr) previous_ = profile_->open_phase(ctx, name);
  }
  ~ProfilePhaseScope() {
    if (profile_ != nullptr) profile_->close_phase(previous_);
  }
  ProfilePhaseScope(const ProfilePhaseScope&) = delete;
  ProfilePhaseScope& operator=(const ProfilePhaseScope&) = delete;

 private:
  Profile* profile_;
  size_t previous_ = 0;
};

class ProfileOpScope {
 public:
  ProfileOpScope(const Context& ctx, const char* op, double flops, double bytes)
      : profile_(ctx.profile) {
    if (profile_ != nullptr) profile_->open_op(op, flops, bytes);
  }
  ~ProfileOpScope() {
    if (profile_ != nullptr) profile_->close_op();
  }
  ProfileOpScope(const ProfileOpScope&) = delete;
  ProfileOpScope& operator=(const ProfileOpScope&) = delete;

 private:
  Profile* profile_;
};

/// Bytes that `count` float32 values take.
template <class Count>
double f32_bytes(Count count) {
  return count * double{sizeof(float)};
}

}  // namespace orrery
