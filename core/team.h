// The threads behind core/parallel.h. Each thread that runs loops has a team of its
// own, built so that no loop waits for a member that sleeps or that the system is not
// running at the moment. A loop is cut into parts. A member claims its own part first,
// so that what it left in its caches is of use, and then any part that nobody has
// begun. So the caller waits only for parts that others are in the middle of. A thread
// that waits spins for a while, whose length it learns from its own waits, and then
// sleeps.
//
// Thread-safe: threads that call at the same time use different teams. A team's members
// are started when a loop first asks for them, sleep while there is no loop, and end
// with the thread that they work for. Their stacks have kTeamStackBytes whatever
// `ulimit -s` says. Where the system refuses a thread (`ulimit -u`, a container's
// limit), one warning says so and loops run with the members there are. There are never
// more than kMembersPerCpu members per CPU. A child of fork() has no members, and its
// loops run in the caller alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace orrery {

/// The most parts that one call of run_parts() may have.
inline constexpr int64_t kMaxParts = 512;
/// The most members per CPU; where there are fewer members than parts, parts wait.
inline constexpr int kMembersPerCpu = 4;
/// As much as a main thread has by default.
inline constexpr size_t kTeamStackBytes = size_t{8} << 20;

/// The most members that a team may have on this host, counting the caller. More would
/// only take each other's CPU.
int max_team_members();

/// Whether this thread is inside a part. run_parts() must not be called there: parallel
/// loops then run serially.
bool inside_part();

using PartFunction = void (*)(void* body, int64_t part);

/// Calls function(body, part) once for every part in [0, parts), at most `parts` calls
/// at a time, and returns when all have ended. REQUIRES: 1 <= parts <= kMaxParts. When
/// parts throw, the first exception is rethrown after all have ended. Parts must not
/// wait for each other.
void run_parts(int64_t parts, PartFunction function, void* body);

template <class Part>
void run_parts(int64_t parts, Part&& part) {
  using Body = std::remove_reference_t<Part>;
  const PartFunction function = [](void* body, int64_t i) { (*static_cast<Body*>(body))(i); };
  run_parts(parts, function, const_cast<void*>(static_cast<const void*>(&part)));
}

}  // namespace orrery
