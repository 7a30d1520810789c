#include "launch/supervision.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

namespace orrery::launch {
namespace {

std::string whole(const std::filesystem::path& path) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(path, error);
  return (error ? path : absolute).lexically_normal().string();
}

}  // namespace

void announce_attempt(const std::filesystem::path& run_dir, int attempt) {
  setenv(kSupervision, fmt::format("{}:{}", attempt, whole(run_dir)).c_str(), 1);
}

int supervised_attempt(const std::filesystem::path& run_dir) {
  const char* const value = std::getenv(kSupervision);
  if (value == nullptr) return 0;
  const std::string_view text(value);
  int attempt = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), attempt);
  const std::string_view rest(end, text.data() + text.size());
  return error == std::errc() && rest.starts_with(':') && rest.substr(1) == whole(run_dir) ? attempt
                                                                                           : 0;
}

}  // namespace orrery::launch
