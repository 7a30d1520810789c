// How the ranks of a job know that `orrery launch` started them: an environment
// variable that mpirun passes on. Not thread-safe where it sets it.
#pragma once

#include <filesystem>

namespace orrery::launch {

/// Whoever may start ranks in a run's folder holds a lock on this file: `orrery launch`
/// for its whole life, also while it waits between two attempts, and a `train` that
/// nobody supervises.
inline constexpr char kLaunchLock[] = ".launch.lock";

/// Name of the variable, for mpirun's -x.
inline constexpr char kSupervision[] = "ORRERY_LAUNCH";

/// Tells the processes started from now on that they are the `attempt`-th attempt (from
/// 1) at the run in `run_dir`.
void announce_attempt(const std::filesystem::path& run_dir, int attempt);

/// The number of this attempt at the run in `run_dir`, or 0 when nobody supervises it.
int supervised_attempt(const std::filesystem::path& run_dir);

}  // namespace orrery::launch
