#include "actors/prompt_template.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/ascii.h"
#include "core/error.h"

namespace orrery::actors {
namespace {

constexpr std::string_view kNamed = "{prompt}";
constexpr std::string_view kBare = "{}";

std::string_view placeholder(const std::string& pattern) {
  return pattern.find(kNamed) != std::string::npos ? kNamed : kBare;
}

/// A template in a message: one short line.
std::string shown(const std::string& text) {
  constexpr size_t kLongest = 60;
  std::string out;
  for (const char c : first_characters(text, kLongest)) {
    if (c == '\n') {
      out += "\\n";
    } else {
      out += is_control(c) ? ' ' : c;
    }
  }
  return text.size() <= kLongest ? out : out + "...";
}

/// The template's text before the prompt, and its text behind it.
std::pair<std::string, std::string> halves(const std::string& pattern) {
  const std::string_view place = placeholder(pattern);
  const size_t at = pattern.find(place);
  ORRERY_CHECK(at != std::string::npos, "a prompt template without a place for the prompt");
  return {pattern.substr(0, at), pattern.substr(at + place.size())};
}

/// Puts `before` and `behind` around the message's text; its other keys stay as they
/// are.
void wrap(text::ChatMessage& message, const std::string& before, const std::string& behind) {
  const auto parts = message.more.is_object() ? message.more.find("content") : message.more.end();
  if (parts == message.more.end() || parts->is_null() || parts->is_string()) {
    message.content = before + message.content + behind;
    if (parts != message.more.end()) {
      *parts = message.content;
    } else if (message.more.is_object() && message.more.contains("role")) {
      // A whole message without content: it is this text now.
      message.more["content"] = message.content;
    }
    return;
  }
  std::vector<text::OrderedJson*> texts;
  if (parts->is_array()) {
    for (text::OrderedJson& part : *parts) {
      if (part.is_object() && part.contains("text") && part["text"].is_string())
        texts.push_back(&part["text"]);
    }
  }
  if (texts.empty())
    fail("the last user message has no text for data.prompt_template to stand around");
  *texts.front() = before + texts.front()->get<std::string>();
  *texts.back() = texts.back()->get<std::string>() + behind;
  message.content.clear();
  for (const text::OrderedJson* text : texts)
    message.content += text->get_ref<const std::string&>();
}

}  // namespace

void check_prompt_template(const std::string& pattern) {
  const std::string_view place = placeholder(pattern);
  const size_t at = pattern.find(place);
  if (at == std::string::npos) {
    fail_usage("data.prompt_template is '{}': it must contain {{}}, where the prompt goes",
               shown(pattern));
  }
  if (pattern.find(place, at + place.size()) == std::string::npos) return;
  fail_usage(
      "data.prompt_template is '{}': it must contain {} exactly once, where the prompt goes{}",
      shown(pattern), place,
      place == kBare ? "; write {prompt} there, and every {} stays as it is" : "");
}

std::string fill_prompt_template(const std::string& pattern, const std::string& text) {
  const auto [before, behind] = halves(pattern);
  return before + text + behind;
}

std::vector<text::ChatMessage> with_prompt_template(std::vector<text::ChatMessage> messages,
                                                    const std::string& pattern) {
  if (pattern == kBare || pattern == kNamed) return messages;
  const auto last =
      std::find_if(messages.rbegin(), messages.rend(),
                   [](const text::ChatMessage& message) { return message.role == "user"; });
  if (last == messages.rend()) {
    fail("the conversation has no user message for data.prompt_template to stand around");
  }
  const auto [before, behind] = halves(pattern);
  wrap(*last, before, behind);
  return messages;
}

}  // namespace orrery::actors
