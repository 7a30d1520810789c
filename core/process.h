// What the system knows about processes and about this host.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

namespace orrery {

/// This host's name; empty when it has none.
std::string host_name();

struct ProcessStat {
  /// The kernel's letter: R runs, S sleeps, D waits for a device, T or t stopped, Z
  /// ended.
  char state = '?';
  pid_t parent = 0;

  bool stopped() const { return state == 'T' || state == 't'; }
};

/// State and parent of a process on this host, read from /proc. Nothing when there is
/// no such process.
std::optional<ProcessStat> process_stat(pid_t pid);

/// The memory of this host in bytes.
size_t physical_memory();

/// CPUs that the quotas of this process's control groups allow it (a container's
/// --cpus), rounded up, at least 1; INT_MAX where there is none. `groups`:
/// /proc/self/cgroup, `mount`: /sys/fs/cgroup; versions 1 and 2.
int quota_cpus(const std::filesystem::path& groups, const std::filesystem::path& mount);

}  // namespace orrery
