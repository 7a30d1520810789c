#include "core/parallel.h"

#include <sched.h>

#include "core/process.h"

namespace orrery {

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, std::min(CPU_COUNT(&set), quota_cpus("/proc/self/cgroup", "/sys/fs/cgroup")));
}

}  // namespace orrery
