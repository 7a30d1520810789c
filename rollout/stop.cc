#include "rollout/stop.h"

#include <algorithm>

namespace orrery::rollout {

bool find_stop_string(std::string& tail, std::string_view text,
                      std::span<const std::string> stop_strings) {
  tail += text;
  size_t keep = 0;
  for (const std::string& stop : stop_strings) {
    if (tail.find(stop) != std::string::npos) return true;
    keep = std::max(keep, stop.size() - 1);
  }
  if (tail.size() > keep) tail.erase(0, tail.size() - keep);
  return false;
}

StopStrings sort_stop_strings(const text::Tokenizer& tokenizer,
                              std::span<const std::string> stop_strings) {
  StopStrings sorted;
  for (const std::string& stop : stop_strings) {
    sorted.strings.push_back(stop);
    const std::optional<int32_t> id = tokenizer.token_to_id(stop);
    if (id && tokenizer.is_special(*id)) {
      sorted.ids.push_back(*id);
    } else if (tokenizer.mentions_special_token(stop)) {
      sorted.spelled.push_back(stop);
    }
  }
  return sorted;
}

StopMatcher::StopMatcher(const text::Tokenizer& tokenizer, const StopStrings& stops)
    : stops_(&stops),
      decoder_(tokenizer, /*skip_special_tokens=*/true),
      spelled_decoder_(tokenizer, /*skip_special_tokens=*/false) {}

bool StopMatcher::push(int32_t id) {
  if (find_stop_string(tail_, decoder_.push(id), stops_->strings)) return true;
  return !stops_->spelled.empty() &&
         find_stop_string(spelled_tail_, spelled_decoder_.push(id), stops_->spelled);
}

}  // namespace orrery::rollout
