#include "core/error_report.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "core/file.h"

namespace orrery {
namespace {

constexpr const char* kOutOfMemory = "out of memory; use a smaller batch, token budget or KV cache";

/// What to do about an errno; empty when only looking at the place helps.
std::string_view advice(int code) {
  switch (code) {
    case ELOOP:
      return "its symbolic links lead in a circle, give another path";
    case ENAMETOOLONG:
      return "give a shorter path";
    case EACCES:
    case EPERM:
      return "change its permissions, or give another path";
    case EROFS:
      return "give another path";
    case ENOTDIR:
      return "a file stands where a folder is needed, give another path";
    case EEXIST:
      return "something else stands there, remove it or give another path";
    case ENOSPC:
    case EDQUOT:
      return "free some space, or give a path on another disk";
    case ENOENT:
      return "check the path";
    case EMFILE:
    case ENFILE:
      return "raise the limit of open files (ulimit -n)";
    default:
      return "";
  }
}

/// Whether the same path will do no better next time.
bool is_final(int code) {
  return code == ELOOP || code == ENAMETOOLONG || code == EACCES || code == EPERM ||
         code == EROFS || code == ENOTDIR;
}

/// nlohmann's texts begin with "[json.exception.parse_error.101] ".
std::string without_mark(std::string_view text) {
  const size_t end =
      text.starts_with("[json.exception.") ? text.find("] ") : std::string_view::npos;
  return std::string(end == std::string_view::npos ? text : text.substr(end + 2));
}

}  // namespace

std::string system_reason(int code) {
  const std::string_view what_to_do = advice(code);
  return fmt::format("{}{}{}", std::strerror(code), what_to_do.empty() ? "" : ": ", what_to_do);
}

ErrorReport describe_error(const std::exception& error) {
  if (const auto* ours = dynamic_cast<const Error*>(&error)) {
    const bool known = dynamic_cast<const SystemError*>(ours) != nullptr ||
                       dynamic_cast<const UserError*>(ours) != nullptr;
    return {ours->what(), ours->exit_code(), ours->exit_code() == kExitFailure && !known};
  }
  if (const auto* files = dynamic_cast<const std::filesystem::filesystem_error*>(&error)) {
    const int code = files->code().value();
    const std::string other =
        files->path2().empty() ? "" : fmt::format(" and {}", files->path2().string());
    return {fmt::format("cannot use {}{}: {}", files->path1().string(), other, system_reason(code)),
            is_final(code) ? kExitUsage : kExitFailure, false};
  }
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
      dynamic_cast<const std::length_error*>(&error) != nullptr) {
    return {kOutOfMemory, kExitFailure, false};
  }
  if (const auto* system = dynamic_cast<const std::system_error*>(&error)) {
    const int code = system->code().value();
    if (code == EAGAIN) {
      return {
          "the system starts no further thread; lower cluster.threads or --threads, "
          "or raise the limit of processes (ulimit -u)",
          kExitFailure, false};
    }
    return {fmt::format("the system refused a request: {}", system_reason(code)), kExitFailure,
            true};
  }
  return {fmt::format("internal error: {}; please report this", without_mark(error.what())),
          kExitFailure, true};
}

}  // namespace orrery
