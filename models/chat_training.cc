#include "models/chat_training.h"

#include <algorithm>

#include "core/error.h"

namespace orrery {
namespace {

constexpr size_t kShown = 40;  // bytes of a text in a message

/// `text` from `at` on, cut, between quotes on one line.
std::string shown(const std::string& text, size_t at) {
  if (at >= text.size()) return "nothing";
  std::string out = "\"";
  size_t end = std::min(text.size(), at + kShown);
  while (end < text.size() && end > at && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  for (size_t i = at; i < end; ++i) {
    if (text[i] == '\n') {
      out += "\\n";
    } else {
      out += text[i];
    }
  }
  return out + (end < text.size() ? "...\"" : "\"");
}

/// Where two texts part, at the beginning of a character.
size_t common_length(const std::string& a, const std::string& b) {
  auto at = static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(std::min(a.size(), b.size())), b.begin())
          .first -
      a.begin());
  while (at > 0 && at < a.size() && (static_cast<unsigned char>(a[at]) & 0xC0) == 0x80) --at;
  return at;
}

std::string bytes_of(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::string bytes;
  for (const int32_t id : ids) bytes += tokenizer.token_bytes(id);
  return bytes;
}

bool begins_with(std::span<const int32_t> ids, std::span<const int32_t> beginning) {
  return ids.size() >= beginning.size() && std::equal(beginning.begin(), beginning.end(), ids.begin());
}

/// Ids of a text that goes on where another has ended. Some tokenizers put a space before whatever they are
/// given; after a line's end they do not.
std::vector<int32_t> encode_continuation(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids = tokenizer.encode(text, /*add_special_tokens=*/false);
  if (bytes_of(tokenizer, ids) != " " + text) return ids;
  const std::vector<int32_t> line = tokenizer.encode("\n", /*add_special_tokens=*/false);
  std::vector<int32_t> after = tokenizer.encode("\n" + text, /*add_special_tokens=*/false);
  if (!begins_with(after, line)) return ids;
  after.erase(after.begin(), after.begin() + static_cast<ptrdiff_t>(line.size()));
  return bytes_of(tokenizer, after) == text ? after : ids;
}

}  // namespace

ChatExample chat_example(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                         std::span<const ChatMessage> messages, const std::string& answer,
                         ChatOptions options) {
  ORRERY_CHECK(!chat_template.is_plain(), "a plain model has no template to learn");
  options.add_generation_prompt = true;
  const std::string prompt = chat_template.render(messages, options);
  std::vector<ChatMessage> answered(messages.begin(), messages.end());
  answered.push_back({"assistant", answer});
  options.add_generation_prompt = false;
  const std::string whole = chat_template.render(answered, options);
  if (!whole.starts_with(prompt)) {
    const size_t at = common_length(prompt, whole);
    fail(
        "{}: this chat template cannot be trained with demonstrations: its generation prompt goes on with {} "
        "where the answered conversation has {}, so a response after that prompt is unknown; change the "
        "template, or give sft.text_files",
        tokenizer.chat_template_file(), shown(prompt, at), shown(whole, at));
  }
  const std::string text = whole.substr(prompt.size());
  if (text.empty() && !answer.empty()) {
    fail("{}: this chat template prints nothing for an assistant's message, so there is no response to learn",
         tokenizer.chat_template_file());
  }

  ChatExample example;
  example.prompt = tokenizer.encode(prompt, /*add_special_tokens=*/false);
  const std::vector<int32_t> ids = tokenizer.encode(whole, /*add_special_tokens=*/false);
  example.response =
      begins_with(ids, example.prompt)
          ? std::vector<int32_t>(ids.begin() + static_cast<ptrdiff_t>(example.prompt.size()), ids.end())
          : encode_continuation(tokenizer, text);
  const auto stop = std::find_if(example.response.begin(), example.response.end(),
                                 [&](int32_t id) { return tokenizer.is_eos(id); });
  if (stop != example.response.end()) {
    if (stop == example.response.begin() && !answer.empty()) {
      fail(
          "{}: this chat template ends the sequence ({}) before the assistant's answer, so nothing of it is "
          "learned",
          tokenizer.chat_template_file(), tokenizer.id_to_token(*stop));
    }
    example.response.erase(stop + 1, example.response.end());
  } else if (!tokenizer.eos_ids().empty()) {
    example.response.push_back(tokenizer.eos_ids().front());
  }
  return example;
}

}  // namespace orrery
