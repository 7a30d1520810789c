// Where the time of a step goes, by phase and op: calls, seconds, floating-point
// operations and bytes.
//
// A Profile is reached through Context::profile; without one (the default) a scope is a
// branch. With one it costs two readings of the clock. Scopes read and write only their
// Profile: no result depends on them.
//
//   Phase: a part of the step. Phases nest; time belongs to the innermost one that is open, so the phases'
//          times add up to the whole between start() and stop() exactly. Outside of all: kNoPhase.
//   Op:    one call of a kernel. An op inside another gives its operations and bytes to the outermost one,
//          which alone is timed. Ops do not overlap, so in each phase their times add up to at most the
//          phase's.
//
// Operations are those of the arithmetic as a formula states it (2 a multiply-add;
// causal attention counts the pairs that are seen; a backward's recomputation is not
// counted). Bytes are those of each operand read once and each result written once:
// what must move if no cache held anything before the call and everything during it.
//
// Names are string literals. Not thread-safe: the thread that runs a step's ops is the
// only one with scopes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/context.h"

namespace orrery {

class Profile {
 public:
  using Clock = std::chrono::steady_clock;
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

  /// Measures from now until stop(), in addition to what was measured before. No scope
  /// may be open at either.
  void start();
  void stop();
  /// In the order in which they were first met; kNoPhase is the first.
  const std::vector<Phase>& phases() const { return phases_; }

 private:
  friend class PhaseScope;
  friend class ProfileScope;
  size_t open_phase(const char* name);  ///< returns what was open before
  void close_phase(size_t previous);
  void open_op(const char* name, double flops, double bytes);
  void close_op();
  void charge();  ///< the open phase with the time since the last change of phase

  bool running_ = false;
  std::vector<Phase> phases_{Phase{kNoPhase}};
  size_t phase_ = 0;
  Clock::time_point phase_since_;
  int op_depth_ = 0;
  Op op_{nullptr};  ///< the one that is open
  Clock::time_point op_since_;
};

class PhaseScope {
 public:
  PhaseScope(const Context& ctx, const char* name) : profile_(ctx.profile) {
    if (profile_ != nullptr) previous_ = profile_->open_phase(name);
  }
  ~PhaseScope() {
    if (profile_ != nullptr) profile_->close_phase(previous_);
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  Profile* profile_;
  size_t previous_ = 0;
};

class ProfileScope {
 public:
  ProfileScope(const Context& ctx, const char* op, double flops, double bytes)
      : profile_(ctx.profile) {
    if (profile_ != nullptr) profile_->open_op(op, flops, bytes);
  }
  ~ProfileScope() {
    if (profile_ != nullptr) profile_->close_op();
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  Profile* profile_;
};

/// Bytes of so many float32.
template <class Count>
double f32_bytes(Count count) {
  return static_cast<double>(count) * static_cast<double>(sizeof(float));
}

}  // namespace orrery
