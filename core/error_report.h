// Turns any exception into the line that a user should read. Our own errors say it
// themselves; what a library or the system throws (std::filesystem, std::bad_alloc,
// std::system_error) is put into our words: what, where, what to do. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string>
#include <utility>

#include "core/error.h"

namespace orrery {

struct ErrorReport {
  std::string text;
  int exit_code = kExitFailure;
  /// Neither the user nor the system is the cause, or the cause cannot be known. Then
  /// what the process did last may help (core/flight_recorder.h).
  bool unexpected = false;
};

ErrorReport describe_error(const std::exception& error);

/// The text of `code` (an errno) with what to do about it: "Read-only file system: give
/// another path".
std::string system_reason(int code);

/// A run-time failure that the user's input or code caused (a reward that is not a
/// number): its line says everything.
class UserError : public Error {
 public:
  using Error::Error;
};

template <class... Args>
[[noreturn]] void fail_user_error(fmt::format_string<Args...> format, Args&&... args) {
  throw UserError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace orrery
