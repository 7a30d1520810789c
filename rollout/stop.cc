#include "rollout/stop.h"

#include <algorithm>

namespace orrery {

bool find_stop_string(std::string& tail, std::string_view text, std::span<const std::string> stop_strings) {
  tail += text;
  size_t keep = 0;
  for (const std::string& stop : stop_strings) {
    if (tail.find(stop) != std::string::npos) return true;
    keep = std::max(keep, stop.size() - 1);
  }
  if (tail.size() > keep) tail.erase(0, tail.size() - keep);
  return false;
}

}  // namespace orrery
