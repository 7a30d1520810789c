#include "actors/prompt_source.h"

#include <bit>

#include "actors/template_variables.h"
#include "core/error.h"
#include "core/rng.h"

namespace orrery {
namespace {

constexpr uint64_t kUnlimitedValidation = 500;
constexpr int kFeistelRounds = 4;
constexpr const char* kPlaceholder = "{}";

std::string fill(const std::string& pattern, const std::string& text) {
  const size_t at = pattern.find(kPlaceholder);
  return pattern.substr(0, at) + text + pattern.substr(at + 2);
}

}  // namespace

uint64_t permuted_index(uint64_t seed, uint64_t epoch, uint64_t size, uint64_t index) {
  ORRERY_CHECK(index < size, "index {} of {}", index, size);
  if (size <= 1) return index;
  // A balanced Feistel network permutes [0, 4^half_bits); values outside [0, size) are permuted again until
  // they fall inside, which keeps it a permutation of the smaller set (cycle walking).
  const int half_bits = (std::bit_width(size - 1) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  uint64_t value = index;
  do {
    uint64_t left = value >> half_bits, right = value & mask;
    for (int round = 0; round < kFeistelRounds; ++round) {
      const PhiloxBlock block = philox_block(seed ^ (epoch * 0x9E3779B97F4A7C15ull), RngPurpose::kShuffle,
                                             right, static_cast<uint32_t>(round));
      const uint64_t mixed = left ^ (((static_cast<uint64_t>(block[1]) << 32) | block[0]) & mask);
      left = right;
      right = mixed;
    }
    value = (left << half_bits) | right;
  } while (value >= size);
  return value;
}

PromptSource::PromptSource(const proto::DataSection& data, const Environment& env, const Tokenizer& tokenizer,
                           uint64_t seed)
    : data_(data), env_(env), tokenizer_(tokenizer), seed_(seed) {
  const std::string& pattern = data.prompt_template();
  const size_t at = pattern.find(kPlaceholder);
  if (at == std::string::npos || pattern.find(kPlaceholder, at + 2) != std::string::npos) {
    fail_usage("data.prompt_template is \"{}\": it must contain {{}} exactly once, where the prompt goes",
               pattern);
  }
  if (!data.apply_chat_template()) return;
  chat_template_.emplace(tokenizer, template_variables(data));
  if (chat_template_->is_plain()) {
    fail_usage(
        "data.apply_chat_template is set but the model's folder has no chat template; set it to false");
  }
}

std::vector<int32_t> PromptSource::tokens(const Episode& episode) const {
  if (chat_template_) {
    std::vector<ChatMessage> messages = episode.messages();
    if (data_.has_system_prompt() && (messages.empty() || messages.front().role != "system")) {
      messages.insert(messages.begin(), {"system", data_.system_prompt()});
    }
    return tokenizer_.encode(render_chat(*chat_template_, messages, /*add_generation_prompt=*/true),
                             /*add_special_tokens=*/false);
  }
  std::vector<int32_t> ids =
      tokenizer_.encode(fill(data_.prompt_template(), episode.prompt()), /*add_special_tokens=*/true);
  if (ids.empty() && tokenizer_.bos_id()) ids.push_back(*tokenizer_.bos_id());
  return ids;
}

Prompt PromptSource::train_prompt(uint64_t prompt_index) const {
  const uint64_t size = env_.size(Split::kTrain);
  uint64_t skipped = 0;
  while (true) {
    const uint64_t at = prompt_index + skipped;
    const uint64_t item =
        size == 0 ? at : (data_.shuffle() ? permuted_index(seed_, at / size, size, at % size) : at % size);
    Prompt prompt{item, tokens(*env_.reset(Split::kTrain, item))};
    const auto length = static_cast<int64_t>(prompt.tokens.size());
    if (length >= 1 && length <= data_.max_prompt_length()) return prompt;
    if (data_.on_error() == proto::DataSection::FAIL || ++skipped > std::max<uint64_t>(size, 1000)) {
      fail("{}: the prompt has {} tokens; data.max_prompt_length is {}: raise it, or set data.on_error: skip",
           env_.where(Split::kTrain, item), length, data_.max_prompt_length());
    }
  }
}

Prompt PromptSource::val_prompt(uint64_t index) const {
  Prompt prompt{index, tokens(*env_.reset(Split::kVal, index))};
  const auto length = static_cast<int64_t>(prompt.tokens.size());
  if (length < 1 || length > data_.max_prompt_length()) {
    fail("{}: the prompt has {} tokens; data.max_prompt_length is {}: raise it",
         env_.where(Split::kVal, index), length, data_.max_prompt_length());
  }
  return prompt;
}

uint64_t PromptSource::val_size() const {
  const auto wanted = static_cast<uint64_t>(data_.val_size());
  const uint64_t size = env_.size(Split::kVal);
  if (size == 0) return wanted > 0 ? wanted : kUnlimitedValidation;
  return wanted > 0 ? std::min(wanted, size) : size;
}

}  // namespace orrery
