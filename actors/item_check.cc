#include "actors/item_check.h"

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "core/parallel.h"
#include "core/timer.h"

namespace orrery::actors {
namespace {

/// How many items are checked between two looks at the clock.
constexpr uint64_t kPart = 2048;

}  // namespace

UsableItems find_usable(const CheckSetup& setup, const ItemCheck& check) {
  UsableItems usable;
  uint64_t done = 0, left_out = 0;
  std::string first_problem;
  const Timer timer;
  double told = 0;
  while (done < check.count && done - left_out < check.wanted) {
    const uint64_t size = std::min({kPart, check.count - done, check.wanted - (done - left_out)});
    std::vector<ItemProblem> problems(size);
    parallel_items(setup.ctx, std::ssize(problems),
                   [&](uint64_t i) { problems[i] = check.problem(done + i); });
    for (ItemProblem& problem : problems) {
      if (problem.text.empty()) {
        if (left_out > 0) usable.items_.push_back(done);
      } else {
        if (!check.skip) {
          fail_usage("{}; {} or set data.on_error: skip to leave such {} out", problem.text,
                     problem.too_long ? "raise that" : "mend it", check.noun);
        }
        if (left_out++ == 0) {
          first_problem = std::move(problem.text);
          usable.items_.reserve(std::min(check.count, check.wanted));
          for (uint64_t item = 0; item < done; ++item) usable.items_.push_back(item);
        }
      }
      ++done;
    }
    if (setup.on_progress) setup.on_progress();
    if (setup.tell && done < check.count && timer.seconds() - told > setup.log_every_seconds) {
      told = timer.seconds();
      spdlog::info("checked {} of {} {}", with_thousands_separators(done),
                   with_thousands_separators(check.count), check.noun);
    }
  }
  usable.all_ = done - left_out;
  if (usable.all_ == 0 && left_out > 0) {
    fail_usage("none of {} {} can be used, the first because: {}", with_thousands_separators(done),
               check.noun, first_problem);
  }
  if (left_out > 0 && setup.tell) {
    spdlog::warn("{} of {} {} left out, the first because: {}", with_thousands_separators(left_out),
                 with_thousands_separators(done), check.noun, first_problem);
  }
  return usable;
}

std::string grouped_digits(const std::string& digits) {
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

}  // namespace orrery::actors
