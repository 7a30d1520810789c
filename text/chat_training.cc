#include "text/chat_training.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "core/error.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

constexpr size_t kShown = 40;  // how many bytes of a text a message quotes

/// The beginning of `text` from `at` on, in quotes and on one line.
std::string shown(const std::string& text, size_t at) {
  if (at >= text.size()) return "nothing";
  std::string out = "\"";
  size_t end = std::min(text.size(), at + kShown);
  while (end < text.size() && end > at && continues_character(text[end])) --end;
  for (size_t i = at; i < end; ++i) {
    if (text[i] == '\n') {
      out += "\\n";
    } else {
      out += text[i];
    }
  }
  return out + (end < text.size() ? "...\"" : "\"");
}

/// Where two texts part. It is the beginning of a character.
size_t common_length(const std::string& a, const std::string& b) {
  const size_t shorter = std::min(a.size(), b.size());
  size_t at = 0;
  while (at < shorter && a[at] == b[at]) ++at;
  while (at > 0 && at < a.size() && continues_character(a[at])) --at;
  return at;
}

std::string bytes_of(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::string bytes;
  for (const int32_t id : ids) bytes += tokenizer.token_bytes(id);
  return bytes;
}

bool begins_with(std::span<const int32_t> ids, std::span<const int32_t> beginning) {
  return ids.size() >= beginning.size() &&
         std::equal(beginning.begin(), beginning.end(), ids.begin());
}

/// The ids of a text that continues another. Some tokenizers put a space before every
/// text; they do not put one after the end of a line.
std::vector<int32_t> encode_continuation(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids = tokenizer.encode(text, /*add_special_tokens=*/false);
  if (bytes_of(tokenizer, ids) != " " + text) return ids;
  const std::vector<int32_t> line = tokenizer.encode("\n", /*add_special_tokens=*/false);
  std::vector<int32_t> after = tokenizer.encode("\n" + text, /*add_special_tokens=*/false);
  if (!begins_with(after, line)) return ids;
  after.erase(after.begin(), after.begin() + std::ssize(line));
  return bytes_of(tokenizer, after) == text ? after : ids;
}

/// The index of the first token from `from` on that ends a sequence; ids.size() if
/// there is none.
size_t find_end(const Tokenizer& tokenizer, std::span<const int32_t> ids, size_t from) {
  while (from < ids.size() && !tokenizer.is_eos(ids[from])) ++from;
  return from;
}

/// A conversation's tokens as they grow, message by message.
class Transcript {
 public:
  explicit Transcript(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  const std::vector<int32_t>& ids() const { return ids_; }

  /// Extends the conversation to `text`, which begins with the text so far. Returns how
  /// many tokens there were before.
  size_t go_on(const std::string& text) {
    const size_t before = ids_.size();
    std::vector<int32_t> all = tokenizer_.encode(text, /*add_special_tokens=*/false);
    if (begins_with(all, ids_)) {
      ids_ = std::move(all);
    } else {
      const std::vector<int32_t> rest = encode_continuation(tokenizer_, text.substr(text_.size()));
      ids_.insert(ids_.end(), rest.begin(), rest.end());
    }
    text_ = text;
    return before;
  }

  /// Removes everything after the token at `last`. The text is cut after the first
  /// occurrence of that token's text from `from` on.
  void end_at(size_t last, size_t from) {
    const std::string_view end = tokenizer_.id_to_token(ids_[last]);
    ids_.resize(last + 1);
    if (const size_t at = text_.find(end, from); at != std::string::npos)
      text_.resize(at + end.size());
  }

  void add(int32_t id) { ids_.push_back(id); }
  const std::string& text() const { return text_; }

 private:
  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  std::string text_;
};

[[noreturn]] void fail_rewritten(const Tokenizer& tokenizer, const std::string& before,
                                 const std::string& after) {
  const size_t at = common_length(before, after);
  fail(
      "{}: this chat template prints an earlier turn otherwise once the conversation goes on ({} "
      "where it had {}), so that not all assistant's messages can be learned from one row; "
      "give each a row of its own: \"prompt\" with the messages before it, and \"response\"",
      tokenizer.chat_template_file(), shown(after, at), shown(before, at));
}

/// Whether the message asks the template to print something.
bool says_something(const ChatMessage& message) {
  return !message.content.empty() || !message.more.is_null();
}

/// Visits every text in a value.
void visit_texts(const OrderedJson& value, const std::function<void(const std::string&)>& visit) {
  if (value.is_string()) visit(value.get_ref<const std::string&>());
  if (!value.is_structured()) return;
  // check_json_depth bounds the recursion.
  for (const OrderedJson& part : value) visit_texts(part, visit);
}

}  // namespace

ChatExample chat_example(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                         std::span<const ChatMessage> conversation, LearnedTurns turns,
                         ChatOptions options) {
  ORRERY_CHECK(!chat_template.is_plain(), "a plain model has no template to learn");
  ORRERY_CHECK(!conversation.empty(), "there is no message to learn");
  const auto render = [&](size_t messages, bool prompt) {
    options.add_generation_prompt = prompt;
    return chat_template.render(conversation.first(messages), options);
  };
  ChatExample example;
  Transcript transcript(tokenizer);
  bool first = true;
  const size_t last = conversation.size() - 1;
  for (size_t turn = turns == LearnedTurns::kAll ? 0 : last; turn <= last; ++turn) {
    const ChatMessage& answer = conversation[turn];
    if (turn < last && answer.role != "assistant") continue;
    const std::string prompt = render(turn, /*prompt=*/true);
    if (!prompt.starts_with(transcript.text()))
      fail_rewritten(tokenizer, transcript.text(), prompt);
    transcript.go_on(prompt);
    const std::string whole = render(turn + 1, /*prompt=*/false);
    if (!whole.starts_with(prompt)) {
      const size_t at = common_length(prompt, whole);
      fail(
          "{}: this chat template cannot be trained with demonstrations: "
          "its generation prompt goes on with {} where the answered conversation has {}, "
          "so a response after that prompt is unknown; change the template, or give sft.text_files",
          tokenizer.chat_template_file(), shown(prompt, at), shown(whole, at));
    }
    if (whole.size() == prompt.size() && says_something(answer)) {
      fail(
          "{}: this chat template prints nothing for an assistant's message, "
          "so there is no response to learn",
          tokenizer.chat_template_file());
    }
    if (std::exchange(first, false)) example.prompt = transcript.ids();
    example.loss_mask.resize(transcript.ids().size() - example.prompt.size(), 0);
    const size_t begin = transcript.go_on(whole);
    const size_t end = find_end(tokenizer, transcript.ids(), begin);
    if (end < transcript.ids().size()) {
      if (end == begin && says_something(answer)) {
        fail(
            "{}: this chat template ends the sequence ({}) before the assistant's answer, "
            "so nothing of it is learned",
            tokenizer.chat_template_file(), tokenizer.id_to_token(transcript.ids()[end]));
      }
      transcript.end_at(end, prompt.size());
    } else if (turn == last && !tokenizer.eos_ids().empty()) {
      transcript.add(tokenizer.eos_ids().front());
    }
    example.loss_mask.resize(transcript.ids().size() - example.prompt.size(), 1);
  }
  example.response.assign(transcript.ids().begin() + std::ssize(example.prompt),
                          transcript.ids().end());
  if (std::find(example.loss_mask.begin(), example.loss_mask.end(), 0) == example.loss_mask.end())
    example.loss_mask.clear();
  return example;
}

ChatExample chat_example(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                         std::span<const ChatMessage> messages, const std::string& answer,
                         const ChatOptions& options) {
  std::vector<ChatMessage> answered(messages.begin(), messages.end());
  answered.push_back({"assistant", answer, {}});
  return chat_example(chat_template, tokenizer, answered, LearnedTurns::kLast, options);
}

void check_no_end_inside(const Tokenizer& tokenizer, const ChatMessage& answer) {
  for (const int32_t id : tokenizer.eos_ids()) {
    if (!tokenizer.is_special(id)) continue;  // not recognised in a text
    const std::string_view end = tokenizer.id_to_token(id);
    const auto refuse = [&] {
      fail(
          "the assistant's text has {} inside, which ends a sequence, "
          "so that what follows would not be learned",
          end);
    };
    const size_t at = answer.content.find(end);
    if (at != std::string::npos &&
        answer.content.find_first_not_of(" \t\r\n", at + end.size()) != std::string::npos) {
      refuse();
    }
    if (!answer.more.is_object()) continue;
    for (const auto& [key, value] : answer.more.items()) {
      if (key == "role" || key == "content") continue;
      visit_texts(value, [&](const std::string& text) {
        if (text.find(end) != std::string::npos) refuse();
      });
    }
  }
}

}  // namespace orrery::text
