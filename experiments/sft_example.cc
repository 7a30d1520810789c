#include "experiments/sft_example.h"

#include <algorithm>

#include "core/error.h"
#include "core/log.h"

namespace orrery::experiments {

int64_t SftExample::loss_tokens() const {
  if (loss_mask.empty()) return static_cast<int64_t>(response.size());
  return std::count_if(loss_mask.begin(), loss_mask.end(),
                       [](uint8_t learned) { return learned != 0; });
}

actors::ItemProblem sft_problem(const text::ChatExample& example, int64_t max_length,
                                const std::string& where, const char* what) {
  if (example.prompt.empty()) return {fmt::format("{}: the prompt has no tokens", where)};
  if (example.response.empty()) return {fmt::format("{}: {} has no tokens", where, what)};
  if (static_cast<int64_t>(example.prompt.size()) < max_length) return {};
  return {fmt::format(
              "{}: the prompt has {} tokens and leaves no room for a response in sft.max_length {}",
              where, example.prompt.size(), max_length),
          /*too_long=*/true};
}

void cut_example(text::ChatExample& example, int64_t max_length) {
  const auto room = static_cast<size_t>(max_length) - example.prompt.size();
  if (example.response.size() <= room) return;
  example.response.resize(room);
  if (example.loss_mask.empty()) return;
  example.loss_mask.resize(room);
  // What is not learned at the end would only be computed.
  while (example.loss_mask.back() == 0) example.loss_mask.pop_back();
  example.response.resize(example.loss_mask.size());
}

void Cuts::tell(const char* what, int64_t limit,
                const std::function<std::string(uint64_t)>& where) const {
  const auto is_cut = [](size_t length) { return length > 0; };
  const auto count = std::count_if(lengths_.begin(), lengths_.end(), is_cut);
  if (count == 0) return;
  const auto first = std::find_if(lengths_.begin(), lengths_.end(), is_cut);
  spdlog::warn(
      "{} of {} {} are cut to sft.max_length {} tokens and lose their end; the first: {} with {}",
      actors::grouped(static_cast<uint64_t>(count)), actors::grouped(lengths_.size()), what, limit,
      where(static_cast<uint64_t>(first - lengths_.begin())), *first);
}

}  // namespace orrery::experiments
