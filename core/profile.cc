#include "core/profile.h"

#include <cstring>

#include "core/error.h"

namespace orrery {
namespace {

/// Index of the entry of this name, which is added if there is none. The same literal
/// mostly has the same address; in another source file it may have another one.
template <class Entry>
size_t find_or_add(std::vector<Entry>& entries, const char* name) {
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].name == name) return i;
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    if (std::strcmp(entries[i].name, name) == 0) return i;
  }
  entries.push_back({name});
  return entries.size() - 1;
}

}  // namespace

void Profile::start() {
  ORRERY_CHECK(!running_ && phase_ == 0 && op_depth_ == 0, "a profile starts inside phase {}",
               phases_[phase_].name);
  running_ = true;
  phase_since_ = Clock::now();
}

void Profile::stop() {
  ORRERY_CHECK(running_ && phase_ == 0 && op_depth_ == 0, "a profile stops inside phase {}",
               phases_[phase_].name);
  charge();
  running_ = false;
}

void Profile::charge() {
  if (!running_) return;
  const Clock::time_point now = Clock::now();
  phases_[phase_].time += now - phase_since_;
  phase_since_ = now;
}

size_t Profile::open_phase(const char* name) {
  charge();
  const size_t previous = phase_;
  phase_ = find_or_add(phases_, name);
  return previous;
}

void Profile::close_phase(size_t previous) {
  charge();
  phase_ = previous;
}

void Profile::open_op(const char* name, double flops, double bytes) {
  if (op_depth_++ == 0) {
    op_ = {name};
    op_since_ = Clock::now();
  }
  op_.flops += flops;
  op_.bytes += bytes;
}

void Profile::close_op() {
  if (--op_depth_ > 0 || !running_) return;
  const Clock::duration time = Clock::now() - op_since_;
  std::vector<Op>& ops = phases_[phase_].ops;
  Op& op = ops[find_or_add(ops, op_.name)];
  ++op.calls;
  op.time += time;
  op.flops += op_.flops;
  op.bytes += op_.bytes;
}

}  // namespace orrery
