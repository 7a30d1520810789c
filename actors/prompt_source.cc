#include "actors/prompt_source.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "actors/prompt_template.h"
#include "actors/template_variables.h"
#include "core/error.h"
#include "core/log.h"
#include "core/rng.h"

namespace orrery::actors {
namespace {

constexpr uint64_t kUnlimitedValidation = 500;
constexpr uint32_t kFeistelRounds = 4;

/// How many held-out items are used if none of them has to be left out.
uint64_t wanted_val_size(const proto::DataSection& data, const Environment& env) {
  const uint64_t wanted = data.val_size();
  const uint64_t rows = env.size(Split::kVal);
  if (wanted > 0) return rows > 0 ? std::min(wanted, rows) : wanted;
  return rows > 0 ? rows : kUnlimitedValidation;
}

}  // namespace

uint64_t permuted_index(uint64_t seed, uint64_t epoch, uint64_t size, uint64_t index) {
  ORRERY_CHECK(index < size, "index {} of {}", index, size);
  if (size <= 1) return index;
  // A balanced Feistel network permutes [0, 4^half_bits); values outside [0, size) are
  // permuted again until they fall inside, which keeps it a permutation of the smaller
  // set (cycle walking).
  const int half_bits = (std::bit_width(size - 1) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  uint64_t value = index;
  do {
    uint64_t left = value >> half_bits, right = value & mask;
    for (uint32_t round = 0; round < kFeistelRounds; ++round) {
      const PhiloxBlock block =
          philox_block(seed ^ (epoch * 0x9E3779B97F4A7C15ull), RngPurpose::kShuffle, right, round);
      const uint64_t mixed = left ^ (((uint64_t{block[1]} << 32) | block[0]) & mask);
      left = right;
      right = mixed;
    }
    value = (left << half_bits) | right;
  } while (value >= size);
  return value;
}

PromptSource::PromptSource(const proto::DataSection& data, const Environment& env,
                           const text::Tokenizer& tokenizer, uint64_t seed, const CheckSetup& setup,
                           const PromptUse& use)
    : data_(data), env_(env), tokenizer_(tokenizer), seed_(seed) {
  check_prompt_template(data.prompt_template());
  if (data.apply_chat_template()) {
    chat_template_.emplace(tokenizer, template_variables(data));
    if (chat_template_->is_plain()) {
      fail_usage(
          "data.apply_chat_template is set but the model's folder has no chat template; "
          "set it to false, or give one as model.chat_template_file");
    }
  } else if (setup.tell && env.size(Split::kTrain) + env.size(Split::kVal) > 0 &&
             !tokenizer.chat_template().empty()) {
    spdlog::warn(
        "the model has a chat template but data.apply_chat_template is false: "
        "prompts are plain text, the roles of messages are left out");
  }
  // An epoch is a permutation of all rows that can be used, so all are looked at even
  // for one step.
  if (use.train_prompts > 0) {
    const uint64_t rows = env.size(Split::kTrain);
    train_ = check(Split::kTrain, rows > 0 ? rows : use.train_prompts, setup);
  }
  if (use.val) val_ = check(Split::kVal, wanted_val_size(data, env), setup);
}

UsableItems PromptSource::check(Split split, uint64_t wanted, const CheckSetup& setup) {
  const bool train = split == Split::kTrain;
  const uint64_t rows = env_.size(split);
  ItemCheck check;
  check.noun =
      fmt::format("{}{} prompts", rows == 0 ? "generated " : "", train ? "training" : "held-out");
  check.count = rows > 0 ? rows : std::min(wanted, kGeneratedItemsChecked);
  check.wanted = wanted;
  check.skip = skips();
  std::atomic<int64_t> longest{0};
  check.problem = [&](uint64_t item) -> ItemProblem {
    try {
      const std::vector<int32_t> prompt = tokens(*env_.reset(split, item));
      ItemProblem found = problem(split, item, prompt);
      const int64_t length = std::ssize(prompt);
      for (int64_t old = longest;
           found.text.empty() && old < length && !longest.compare_exchange_weak(old, length);)
        continue;
      return found;
    } catch (const Error& error) {
      return {fmt::format("{}: {}", env_.where(split, item), error.what())};
    }
  };
  UsableItems usable = find_usable(setup, check);
  (train ? longest_train_ : longest_val_) = longest;
  return rows > 0 ? usable : UsableItems();
}

ItemProblem PromptSource::problem(Split split, uint64_t item,
                                  const std::vector<int32_t>& tokens) const {
  if (tokens.empty()) return {fmt::format("{}: the prompt has no tokens", env_.where(split, item))};
  if (std::ssize(tokens) <= data_.max_prompt_length()) return {};
  return {fmt::format("{}: the prompt has {} tokens, more than data.max_prompt_length {}",
                      env_.where(split, item), tokens.size(), data_.max_prompt_length()),
          /*too_long=*/true};
}

std::vector<text::ChatMessage> PromptSource::messages(const Episode& episode) const {
  std::vector<text::ChatMessage> messages =
      with_prompt_template(episode.messages(), data_.prompt_template());
  if (data_.has_system_prompt() && (messages.empty() || messages.front().role != "system")) {
    messages.insert(messages.begin(), {"system", data_.system_prompt()});
  }
  return messages;
}

text::ChatOptions PromptSource::chat_options(const Episode& episode) {
  text::ChatOptions options;
  options.tools = episode.tools();
  return options;
}

std::vector<int32_t> PromptSource::tokens(const Episode& episode) const {
  if (chat_template_)
    return chat_template_->encode(tokenizer_, messages(episode), chat_options(episode));
  std::vector<int32_t> ids = tokenizer_.encode(
      fill_prompt_template(data_.prompt_template(), episode.prompt()), /*add_special_tokens=*/true);
  if (ids.empty() && tokenizer_.bos_id()) ids.push_back(*tokenizer_.bos_id());
  return ids;
}

text::ChatExample PromptSource::example(const Episode& episode, const std::string& answer) const {
  return example(episode, {"assistant", answer, {}}, text::LearnedTurns::kLast);
}

text::ChatExample PromptSource::example(const Episode& episode, const text::ChatMessage& answer,
                                        text::LearnedTurns turns) const {
  text::check_no_end_inside(tokenizer_, answer);
  if (chat_template_) {
    std::vector<text::ChatMessage> conversation = messages(episode);
    if (turns == text::LearnedTurns::kAll) {
      for (const text::ChatMessage& message : conversation) {
        if (message.role == "assistant") text::check_no_end_inside(tokenizer_, message);
      }
    }
    conversation.push_back(answer);
    return text::chat_example(*chat_template_, tokenizer_, conversation, turns,
                              chat_options(episode));
  }
  text::ChatExample example;
  example.prompt = tokens(episode);
  example.response = tokenizer_.encode(answer.content, /*add_special_tokens=*/false);
  if (!tokenizer_.eos_ids().empty()) example.response.push_back(tokenizer_.eos_ids().front());
  return example;
}

Prompt PromptSource::prompt(Split split, uint64_t item) const {
  Prompt prompt{item, tokens(*env_.reset(split, item))};
  const ItemProblem found = problem(split, item, prompt.tokens);
  if (!found.text.empty()) fail_usage("{}", found.text);
  return prompt;
}

Prompt PromptSource::generated(Split split, uint64_t index) const {
  if (!skips()) return prompt(split, index);
  for (uint64_t attempt = 0; attempt < kMaxRedraws; ++attempt) {
    Prompt prompt{replacement_item(index, attempt), {}};
    prompt.tokens = tokens(*env_.reset(split, prompt.item));
    if (problem(split, prompt.item, prompt.tokens).text.empty()) return prompt;
  }
  fail_usage(
      "{}: neither its prompt nor any of {} drawn in its place has 1 to data.max_prompt_length {} "
      "tokens",
      env_.where(split, index), kMaxRedraws, data_.max_prompt_length());
}

Prompt PromptSource::train_prompt(uint64_t prompt_index) const {
  if (env_.size(Split::kTrain) == 0) return generated(Split::kTrain, prompt_index);
  const uint64_t size = train_.size();
  ORRERY_CHECK(size > 0, "training prompts were not asked for");
  const uint64_t epoch = prompt_index / size, at = prompt_index % size;
  return prompt(Split::kTrain,
                train_[data_.shuffle() ? permuted_index(seed_, epoch, size, at) : at]);
}

Prompt PromptSource::val_prompt(uint64_t index) const {
  if (env_.size(Split::kVal) == 0) return generated(Split::kVal, index);
  ORRERY_CHECK(index < val_.size(), "held-out prompt {} of {}", index, val_.size());
  return prompt(Split::kVal, val_[index]);
}

uint64_t PromptSource::val_size() const {
  return env_.size(Split::kVal) == 0 ? wanted_val_size(data_, env_) : val_.size();
}

}  // namespace orrery::actors
