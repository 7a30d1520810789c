// The threads behind core/parallel.h: a team for each thread that asks for one, made so
// that no loop waits for a member that is asleep or that the system does not run just
// now. A loop is cut into parts. Each member claims its own part first, so that what it
// left in its caches is of use, and then any part that nobody has begun: the caller
// waits for parts that others are in the middle of, and for nothing else. Whoever waits
// spins for a while, which it learns from its own waits, and then sleeps.
//
// Thread-safe: threads that call at the same time have a team each. Its members are
// started when a loop first asks for them, sleep while there is no loop, and end with
// the thread that they work for. Their stacks have kTeamStackBytes whatever `ulimit -s`
// says. Where the system refuses a thread (`ulimit -u`, a container's limit), a warning
// says so once and loops run with the members there are; more than kMembersPerCpu of
// them a CPU are never started. A child of fork() has no members, and its loops run in
// the caller alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace orrery {

inline constexpr int64_t kMostParts = 512;  ///< of one call of run_parts()
inline constexpr int kMembersPerCpu = 4;    ///< beyond that, parts wait for a free member
inline constexpr size_t kTeamStackBytes = size_t{8}
                                          << 20;  ///< as much as a main thread has by default

/// Members that a team may have here, the caller among them: more of them would only
/// take each other's CPU.
int most_team_members();

/// Whether this thread is inside a part. run_parts() must not be called there: parallel
/// loops then run serially.
bool inside_part();

using PartFunction = void (*)(void* body, int64_t part);

/// Calls function(body, part) once for every part in [0, parts), at most `parts` at
/// once, and returns when all have ended. Needs 1 <= parts <= kMostParts. An exception
/// of any part is rethrown when all have ended (the first, if there are several). Parts
/// must not wait for each other.
void run_parts(int64_t parts, PartFunction function, void* body);

template <class Part>
void run_parts(int64_t parts, Part&& part) {
  using Body = std::remove_reference_t<Part>;
  const PartFunction function = [](void* body, int64_t i) { (*static_cast<Body*>(body))(i); };
  run_parts(parts, function, const_cast<void*>(static_cast<const void*>(&part)));
}

}  // namespace orrery
