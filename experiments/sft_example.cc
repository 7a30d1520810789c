#include "experiments/sft_example.h"

#include <algorithm>

#include "core/error.h"
#include "core/log.h"

namespace orrery::experiments {

int64_t SftExample::loss_tokens() const {
  if (loss_mask.empty()) return std::ssize(response);
  return std::count_if(loss_mask.begin(), loss_mask.end(),
                       [](uint8_t learned) { return learned != 0; });
}

actors::ItemProblem sft_problem(const text::ChatExample& example, int64_t max_length,
                                const std::string& where, const char* what) {
  if (example.prompt.empty()) return {fmt::format("{}: the prompt has no tokens", where)};
  if (example.response.empty()) return {fmt::format("{}: {} has no tokens", where, what)};
  if (std::ssize(example.prompt) < max_length) return {};
  return {fmt::format(
              "{}: the prompt has {} tokens and leaves no room for a response in sft.max_length {}",
              where, example.prompt.size(), max_length),
          /*too_long=*/true};
}

void cut_example(text::ChatExample& example, int64_t max_length) {
  const int64_t room = max_length - std::ssize(example.prompt);
  if (std::ssize(example.response) <= room) return;
  example.response.resize(room);
  if (example.loss_mask.empty()) return;
  example.loss_mask.resize(room);
  // Tokens at the end that are not learned would be computed for nothing.
  while (example.loss_mask.back() == 0) example.loss_mask.pop_back();
  example.response.resize(example.loss_mask.size());
}

void Cuts::tell(const char* what, int64_t limit,
                const std::function<std::string(uint64_t)>& where) const {
  const auto is_cut = [](int64_t length) { return length > 0; };
  const auto count = std::count_if(lengths_.begin(), lengths_.end(), is_cut);
  if (count == 0) return;
  const auto first = std::find_if(lengths_.begin(), lengths_.end(), is_cut);
  spdlog::warn(
      "{} of {} {} are cut to sft.max_length {} tokens and lose their end; the first: {} with {}",
      actors::with_thousands_separators(count), actors::with_thousands_separators(lengths_.size()),
      what, limit, where(first - lengths_.begin()), *first);
}

}  // namespace orrery::experiments
