#include "config/config_values.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>
#include <vector>

namespace orrery::config {

std::map<std::string, std::string> config_values(const std::string& yaml) {
  std::istringstream in(yaml);
  std::map<std::string, std::string> values;
  std::vector<std::string> path;  // keys that lead to the current line, by indentation
  for (std::string line; std::getline(in, line);) {
    const size_t indent = line.find_first_not_of(' '), colon = line.find(':');
    if (indent == std::string::npos || colon == std::string::npos || colon < indent) continue;
    path.resize(std::min(path.size(), indent / 2));
    path.push_back(line.substr(indent, colon - indent));
    const size_t value = line.find_first_not_of(' ', colon + 1);
    if (value == std::string::npos) continue;
    values[fmt::format("{}", fmt::join(path, "."))] = line.substr(value);
  }
  return values;
}

}  // namespace orrery::config
