// Errors. Contract: everything that can go wrong because of input, configuration,
// files, memory or another rank throws orrery::Error whose text is one line saying what
// is wrong, where, and what to do about it. Broken invariants of our own code are
// ORRERY_CHECKs; they throw too, so that a job ends with a message.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace orrery {

/// Process exit codes (also in every --help).
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;   ///< run-time failure
inline constexpr int kExitUsage = 2;     ///< bad command line or configuration
inline constexpr int kExitDiverged = 3;  ///< a run's policy has diverged

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int exit_code = kExitFailure)
      : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// Throws a run-time Error (exit code 1) with a formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), kExitFailure);
}

/// Throws a usage Error (exit code 2): the user's command line or configuration is
/// wrong.
template <class... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), kExitUsage);
}

[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);

}  // namespace orrery

/// Invariant of our own code; always on. ORRERY_CHECK(rows > 0, "rows is {}", rows);
#define ORRERY_CHECK(condition, ...)                                                      \
  do {                                                                                    \
    if (!(condition)) [[unlikely]]                                                        \
      ::orrery::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
