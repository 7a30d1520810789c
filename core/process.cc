#include "core/process.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

namespace orrery {
namespace {

/// The CPUs that a quota allows per period, both in microseconds. A quota of "max" or
/// -1 is no limit.
int cpus_of(std::istream&& quota, std::istream&& period) {
  double used = 0, whole = 0;
  if (!(quota >> used) || !(period >> whole) || used <= 0 || whole <= 0) return INT_MAX;
  return std::clamp(std::ceil(used / whole), 1.0, 1e6);
}

int cpus_of_v2(const std::filesystem::path& folder) {
  std::ifstream file(folder / "cpu.max");  // "200000 100000"
  std::string quota, period;
  file >> quota >> period;
  return cpus_of(std::istringstream(quota), std::istringstream(period));
}

int cpus_of_v1(const std::filesystem::path& folder) {
  return cpus_of(std::ifstream(folder / "cpu.cfs_quota_us"),
                 std::ifstream(folder / "cpu.cfs_period_us"));
}

}  // namespace

std::string host_name() {
  char name[256] = "";
  return gethostname(name, sizeof name - 1) == 0 ? name : "";
}

std::optional<ProcessStat> process_stat(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  const size_t name_end = text.rfind(')');  // the name may hold anything
  ProcessStat stat;
  if (name_end != std::string::npos)
    std::sscanf(text.c_str() + name_end + 1, " %c %d", &stat.state, &stat.parent);
  return stat;
}

size_t physical_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || size <= 0) return SIZE_MAX;
  return pages * size;
}

int quota_cpus(const std::filesystem::path& groups, const std::filesystem::path& mount) {
  int least = INT_MAX;
  std::ifstream file(groups);
  std::string line;  // "0::/a/b" (version 2), "4:cpu,cpuacct:/a/b" (version 1)
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",cpu,") == std::string::npos) continue;
    // The groups above this one have quotas too. In a container the path may be the
    // host's while only the container's own part is mounted.
    std::filesystem::path group = std::filesystem::path(line.substr(second + 1)).relative_path();
    for (;; group = group.parent_path()) {
      least = std::min(least, v2 ? cpus_of_v2(mount / group) : cpus_of_v1(mount / "cpu" / group));
      if (v2) least = std::min(least, cpus_of_v2(mount / "unified" / group));  // beside version 1
      if (group.empty()) break;
    }
  }
  return least;
}

}  // namespace orrery
