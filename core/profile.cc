#include "core/profile.h"

#include <cstring>

#include "core/error.h"

namespace orrery {
namespace {

/// Intervals that wait to be read at once. So few that they stay in the cache, so many
/// that waiting for the stream each time costs nothing.
constexpr size_t kMaxIntervals = 256;

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
  intervals_.reserve(kMaxIntervals);
  phase_since_ = stream_.record_time();
}

void Profile::stop() {
  ORRERY_CHECK(running_ && phase_ == 0 && op_depth_ == 0, "a profile stops inside phase {}",
               phases_[phase_].name);
  charge();
  read_intervals();
  running_ = false;
}

void Profile::charge() {
  if (!running_) return;
  const Event now = stream_.record_time();
  add({phase_, Op{nullptr}, phase_since_, now});
  phase_since_ = now;
}

void Profile::add(const Interval& interval) {
  intervals_.push_back(interval);
  if (intervals_.size() == kMaxIntervals) read_intervals();
}

void Profile::read_intervals() {
  stream_.synchronize();
  for (const Interval& interval : intervals_) {
    Phase& phase = phases_[interval.phase];
    const Clock::duration time = stream_.between(interval.begin, interval.end);
    if (interval.op.name == nullptr) {
      phase.time += time;
      continue;
    }
    Op& op = phase.ops[find_or_add(phase.ops, interval.op.name)];
    ++op.calls;
    op.time += time;
    op.flops += interval.op.flops;
    op.bytes += interval.op.bytes;
  }
  intervals_.clear();
}

size_t Profile::open_phase(const Context& ctx, const char* name) {
  const Device own = stream_.device();  // whose work may be of any arithmetic
  ORRERY_CHECK(ctx.device.type == own.type && ctx.device.index == own.index,
               "a profile of {} for work on {}", device_name(stream_.device()),
               device_name(ctx.device));
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
    if (running_) op_since_ = stream_.record_time();
  }
  op_.flops += flops;
  op_.bytes += bytes;
}

void Profile::close_op() {
  if (--op_depth_ > 0 || !running_) return;
  add({phase_, op_, op_since_, stream_.record_time()});
}

}  // namespace orrery
