#include "launch/restart_policy.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string_view>

#include "core/ascii.h"
#include "core/error.h"

namespace orrery::launch {
namespace {

bool is_word(char c) { return std::isalnum(byte_of(c)) != 0; }
bool is_digit(char c) { return std::isdigit(byte_of(c)) != 0; }

/// "42", "3f9a", "0x7ffc", "1e".
bool is_number(std::string_view word) {
  if (word.starts_with("0x")) return true;
  return std::ranges::any_of(word, is_digit) &&
         std::ranges::all_of(word, [](char c) { return std::isxdigit(byte_of(c)) != 0; });
}

}  // namespace

std::string mask_numbers(const std::string& text) {
  std::string out;
  const auto mask = [&out] {
    // "1.5", "1e-05" and "10:31:07" are one number each.
    while (out.size() >= 2 &&
           std::string_view(".,:-+").find(out.back()) != std::string_view::npos &&
           out[out.size() - 2] == '#') {
      out.pop_back();
    }
    if (out.empty() || out.back() != '#') out += '#';
  };
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && is_word(text[end])) ++end;
    if (end == at) {
      out += text[at++];
      continue;
    }
    const std::string_view word(text.data() + at, end - at);
    if (is_number(word)) {
      mask();
    } else {
      for (const char c : word) {
        if (!is_digit(c)) {
          out += c;
        } else if (out.empty() || out.back() != '#') {
          out += '#';
        }
      }
    }
    at = end;
  }
  return out;
}

RestartPolicy::Decision RestartPolicy::after(const Outcome& outcome) {
  Decision decision;
  decision.exit_code = outcome.exit_code;
  if (!outcome.seen) {
    decision.exit_code = kExitFailure;
    decision.reason = outcome.exit_code == kExitOk
                          ? "mpirun ended with exit code 0, but no rank has run (is it Open MPI's?)"
                          : fmt::format("mpirun could not start the ranks: {}", outcome.error);
    return decision;
  }
  if (outcome.exit_code == kExitOk) return decision;
  if (outcome.exit_code == kExitUsage) {
    decision.reason =
        "the command line, config, model, data or run folder is wrong, "
        "which a restart does not change";
    return decision;
  }
  if (outcome.exit_code == kExitDiverged) {
    decision.reason = "the policy has diverged, which a restart does not change";
    return decision;
  }
  decision.exit_code = kExitFailure;
  if (outcome.published > published_) {
    restarts_ = 0;
    published_ = outcome.published;
    last_error_.clear();
  }
  const std::string error = mask_numbers(outcome.error);
  const bool same = !error.empty() && error == last_error_;
  same_failures_ = same ? same_failures_ + 1 : 1;
  last_error_ = error;
  if (same_failures_ >= kSameFailures) {
    decision.reason =
        fmt::format("it failed {} times in the same way, now at about step {}: {}", same_failures_,
                    std::max(outcome.step, outcome.published), outcome.error);
    return decision;
  }
  if (restarts_ >= options_.max_restarts) {
    decision.reason = fmt::format(
        "{} restart(s) in a row brought no new checkpoint{}", restarts_,
        published_ > 0 ? fmt::format(" (the newest is of step {})", published_) : std::string());
    return decision;
  }
  decision.restart = true;
  decision.wait_seconds =
      std::min(kMaxBackoff, options_.backoff * std::exp2(std::min(restarts_, 30)));
  decision.restarts = ++restarts_;
  return decision;
}

}  // namespace orrery::launch
