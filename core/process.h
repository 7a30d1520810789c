// What the system says of processes and of this host.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string>

namespace orrery {

/// This host's name; empty when it has none.
std::string host_name();

struct ProcessStat {
  char state = '?';  ///< the kernel's letter: R runs, S sleeps, D waits for a device, T or t stopped, Z ended
  pid_t parent = 0;

  bool stopped() const { return state == 'T' || state == 't'; }
};

/// Of a process on this host, by /proc. Nothing when there is no such process.
std::optional<ProcessStat> process_stat(pid_t pid);

/// Bytes of memory of this host.
size_t physical_memory();

}  // namespace orrery
