#include "actors/envs/constraint.h"

#include <algorithm>
#include <array>

#include "actors/envs/single_turn.h"
#include "actors/envs/text.h"
#include "core/ascii.h"
#include "core/error.h"
#include "core/rng.h"

namespace orrery::actors {
namespace {

constexpr std::array kDefaultWords = {"dog",   "ball", "tree",  "happy", "park", "flower",
                                      "cake",  "bird", "sun",   "box",   "red",  "friend",
                                      "water", "big",  "smile", "home"};
constexpr std::array kPrompts = {"Once upon a time", "One day, a little girl named Lily",
                                 "There was a boy named Tim.", "One sunny day,"};
/// Held-out items are drawn from indices of their own.
constexpr uint64_t kHeldOutOffset = uint64_t{1} << 40;

bool is_word_char(char c) { return is_letter(c) || is_digit(c); }

bool contains_word(const std::string& lower_text, const std::string& lower_word) {
  for (size_t at = lower_text.find(lower_word); at != std::string::npos;
       at = lower_text.find(lower_word, at + 1)) {
    const size_t end = at + lower_word.size();
    if ((at == 0 || !is_word_char(lower_text[at - 1])) &&
        (end == lower_text.size() || !is_word_char(lower_text[end]))) {
      return true;
    }
  }
  return false;
}

int64_t count_words(std::string_view text) {
  int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    words += !is_space(c) && !inside ? 1 : 0;
    inside = !is_space(c);
  }
  return words;
}

/// The index of one of `count` things.
uint32_t draw(Philox& generator, int64_t count) {
  return generator.below(static_cast<uint32_t>(count));
}

/// "a, b and c"
std::string join(const std::vector<std::string>& words) {
  std::string result;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) result += i + 1 == words.size() ? " and " : ", ";
    result += words[i];
  }
  return result;
}

StepResult score(const std::string& response, const std::vector<std::string>& words,
                 const proto::ConstraintSection& config) {
  double total = 0;
  int active = 0;
  bool all = true;
  StepResult result;
  const auto add = [&](const char* name, double value) {
    result.extra[name] = value;
    total += value;
    ++active;
    all = all && value >= 1;
  };
  if (!words.empty()) {
    const std::string text = to_lower(response);
    const double wanted = std::ssize(words);
    const double found = std::count_if(words.begin(), words.end(), [&](const std::string& word) {
      return contains_word(text, to_lower(word));
    });
    add("contains", found / wanted);
  }
  if (config.min_words() > 0 || config.max_words() > 0) {
    const int64_t count = count_words(response);
    const bool inside =
        count >= config.min_words() && (config.max_words() == 0 || count <= config.max_words());
    add("length_ok", inside ? 1 : 0);
  }
  if (!config.ending().empty())
    add("ending_ok", strip(response).ends_with(config.ending()) ? 1 : 0);
  result.reward = active > 0 ? static_cast<float>(total / active) : 0.0f;
  result.extra["correct"] = all ? 1 : 0;
  return result;
}

class Constraint final : public Environment {
 public:
  Constraint(const proto::ConstraintSection& config, uint64_t seed) : config_(config), seed_(seed) {
    if (config_.words().empty())
      config_.mutable_words()->Assign(kDefaultWords.begin(), kDefaultWords.end());
    if (config_.prompts().empty())
      config_.mutable_prompts()->Assign(kPrompts.begin(), kPrompts.end());
    if (config_.words_per_prompt() > config_.words_size()) {
      fail_usage("data.constraint.words_per_prompt is {} but data.constraint.words has {}",
                 config_.words_per_prompt(), config_.words_size());
    }
    if (config_.max_words() > 0 && config_.max_words() < config_.min_words()) {
      fail_usage("data.constraint.max_words {} is less than min_words {}", config_.max_words(),
                 config_.min_words());
    }
    if (config_.words_per_prompt() == 0 && config_.min_words() == 0 && config_.max_words() == 0 &&
        config_.ending().empty()) {
      fail_usage(
          "data.constraint asks for nothing: set words_per_prompt, min_words, max_words or ending");
    }
    for (const std::string& word : config_.words()) {
      if (strip(word).empty()) fail_usage("data.constraint.words has an empty word");
    }
  }

  uint64_t size(Split) const override { return 0; }

  std::unique_ptr<Episode> reset(Split split, uint64_t index) const override {
    const uint64_t item = split == Split::kVal ? index + kHeldOutOffset : index;
    Philox generator(seed_, RngPurpose::kEnvironment, item);
    std::string prompt = config_.prompts().begin()[draw(generator, config_.prompts_size())];
    std::vector<std::string> pool(config_.words().begin(), config_.words().end()), words;
    for (int64_t i = 0; i < config_.words_per_prompt(); ++i) {
      const uint32_t at = config_.fixed_words() ? 0 : draw(generator, std::ssize(pool));
      words.push_back(pool[at]);
      pool.erase(pool.begin() + at);
    }
    if (const size_t at = prompt.find("{words}"); at != std::string::npos)
      prompt.replace(at, 7, join(words));
    return std::make_unique<SingleTurnEpisode>(
        prompt, "constraint",
        [this, words](const std::string& response) { return score(response, words, config_); });
  }

  std::vector<std::string> reward_parts() const override {
    // Which words and which response makes no difference.
    const std::vector<std::string> words(
        config_.words().begin(),
        config_.words().begin() + static_cast<int>(config_.words_per_prompt()));
    std::vector<std::string> names;
    for (const auto& [name, value] : score("", words, config_).extra) names.push_back(name);
    return names;
  }

  std::optional<Demonstration> demonstration(uint64_t) const override { return std::nullopt; }

 private:
  proto::ConstraintSection config_;
  uint64_t seed_;
};

}  // namespace

std::unique_ptr<Environment> make_constraint(const proto::ConstraintSection& config,
                                             uint64_t seed) {
  return std::make_unique<Constraint>(config, seed);
}

}  // namespace orrery::actors
