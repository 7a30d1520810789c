#include "tools/rollout_filter.h"

#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace orrery::tools {
namespace {

/// The whole of `text` as a number.
template <class T>
std::optional<T> read_whole(std::string_view text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

/// Rewards are shown with six digits, and what is shown is what people type.
bool as_shown(float reward, float value) {
  return reward == value || std::abs(reward - value) <= 1e-6F * std::abs(value);
}

}  // namespace

bool RewardFilter::matches(float reward) const {
  switch (relation) {
    case Relation::kEqual:
      return as_shown(reward, value);
    case Relation::kNotEqual:
      return !as_shown(reward, value);
    case Relation::kBelow:
      return reward < value;
    case Relation::kAtMost:
      return reward <= value;
    case Relation::kAbove:
      return reward > value;
    case Relation::kAtLeast:
      return reward >= value;
  }
  return false;
}

RewardFilter parse_reward_filter(const std::string& text) {
  using Relation = RewardFilter::Relation;
  constexpr std::array<std::pair<std::string_view, Relation>, 7> kRelations = {
      {{"==", Relation::kEqual},
       {"!=", Relation::kNotEqual},
       {"<=", Relation::kAtMost},
       {">=", Relation::kAtLeast},
       {"=", Relation::kEqual},
       {"<", Relation::kBelow},
       {">", Relation::kAbove}}};
  RewardFilter filter;
  std::string_view rest = text;
  for (const auto& [sign, relation] : kRelations) {
    if (!rest.starts_with(sign)) continue;
    rest.remove_prefix(sign.size());
    filter.relation = relation;
    break;
  }
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  if (rest.starts_with('+')) rest.remove_prefix(1);
  // Rewards are floats, so the value is read as one: 0.1 is then the 0.1 of the file.
  const std::optional<float> value = read_whole<float>(rest);
  if (!value || std::isnan(*value)) {
    fail_usage(
        "--reward \"{}\": give a number, as in --reward 0, or one behind <, <=, >, "
        ">= or != in quotes, as in --reward '<0.5'",
        text);
  }
  filter.value = *value;
  return filter;
}

StepFilter parse_step_filter(const std::string& text) {
  constexpr std::string_view kBetween = "..";
  const std::string_view whole = text;
  StepFilter filter;
  bool good = false;
  if (const size_t at = whole.find(kBetween); at == std::string_view::npos) {
    const auto step = read_whole<uint64_t>(whole);
    good = step.has_value();
    if (good) filter = {*step, *step};
  } else {
    const std::string_view first = whole.substr(0, at), last = whole.substr(at + kBetween.size());
    const auto begin = first.empty() ? std::optional<uint64_t>(0) : read_whole<uint64_t>(first);
    const auto end =
        last.empty() ? std::optional<uint64_t>(UINT64_MAX) : read_whole<uint64_t>(last);
    good = begin && end && *begin <= *end && !(first.empty() && last.empty());
    if (good) filter = {*begin, *end};
  }
  if (!good) {
    fail_usage(
        "--step \"{}\": give a step or a range whose first is not after its last, "
        "as in --step 600, --step 600..800 or --step 600..",
        text);
  }
  return filter;
}

bool RolloutFilter::matches(const rollout::RolloutFile& file) const {
  return (!step || step->matches(file.step)) && (!stage || *stage == file.stage);
}

bool RolloutFilter::matches(const rollout::Trajectory& sample,
                            const std::string* prompt_text) const {
  if (reward && !reward->matches(sample.reward)) return false;
  if (prompt_index && *prompt_index != sample.prompt_index) return false;
  if (!grep) return true;
  const auto holds = [this](const std::string& text) {
    return text.find(*grep) != std::string::npos;
  };
  return holds(sample.response_text) || holds(sample.truth) ||
         (prompt_text != nullptr && holds(*prompt_text));
}

}  // namespace orrery::tools
