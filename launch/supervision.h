// How the ranks of a job know that `orrery launch` started them: an environment
// variable that mpirun passes on. Not thread-safe where it sets it.
#pragma once

#include <filesystem>

namespace orrery::launch {

/// Locked by whoever may start ranks in a run's folder: `orrery launch` for its whole
/// life, its waits between two attempts too, and a `train` that nobody supervises.
inline constexpr char kLaunchLock[] = ".launch.lock";

/// Name of the variable, for mpirun's -x.
inline constexpr char kSupervision[] = "ORRERY_LAUNCH";

/// Of the processes started from now on: they are the `attempt`-th (from 1) at the run
/// in `run_dir`.
void announce_attempt(const std::filesystem::path& run_dir, int attempt);

/// The number of this attempt at the run in `run_dir`; 0: nobody supervises it.
int supervised_attempt(const std::filesystem::path& run_dir);

}  // namespace orrery::launch
