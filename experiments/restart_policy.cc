#include "experiments/restart_policy.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "core/error.h"

namespace orrery {
namespace {

/// The text with every number replaced: times, process ids and values differ from one attempt to the next.
std::string without_numbers(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool inside = !out.empty() && out.back() == '#';
    const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0 || (inside && c == '.');
    if (!digit) {
      out += c;
    } else if (!inside) {
      out += '#';
    }
  }
  return out;
}

}  // namespace

RestartPolicy::Decision RestartPolicy::after(const Outcome& outcome) {
  Decision decision;
  decision.exit_code = outcome.exit_code;
  if (outcome.exit_code == kExitOk) return decision;
  if (outcome.exit_code == kExitUsage) {
    decision.reason = "the command line or config is wrong, which a restart does not change";
    return decision;
  }
  decision.exit_code = kExitFailure;
  if (outcome.step > furthest_) {
    restarts_ = 0;
    furthest_ = outcome.step;
  }
  const std::string error = without_numbers(outcome.error);
  const bool same = !error.empty() && error == last_error_ && outcome.step == last_step_;
  same_failures_ = same ? same_failures_ + 1 : 1;
  last_error_ = error;
  last_step_ = outcome.step;
  if (same_failures_ >= kSameFailures) {
    decision.reason = fmt::format("it failed {} times in the same way at step {}: {}", same_failures_,
                                  outcome.step, outcome.error);
    return decision;
  }
  if (restarts_ >= options_.max_restarts) {
    decision.reason = fmt::format("{} restart(s) in a row got no further than step {}", restarts_, furthest_);
    return decision;
  }
  decision.restart = true;
  decision.wait_seconds = std::min(kMaxBackoff, options_.backoff * std::exp2(std::min(restarts_, 30)));
  decision.restarts = ++restarts_;
  return decision;
}

}  // namespace orrery
