#include "text/jinja_text.h"

#include <algorithm>

#include "core/error.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

constexpr int64_t kMaxText = int64_t{1} << 24;
constexpr int64_t kMaxItems = int64_t{1} << 20;

bool starts_character(char c) { return !continues_character(c); }

std::string_view first_character(std::string_view text) {
  return text.substr(0, utf8_length(text[0]));
}

std::string_view last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && !starts_character(text[begin])) --begin;
  return text.substr(begin);
}

bool is_space_character(std::string_view character) {
  return is_python_space(utf8_code_point(character, 0));
}

std::vector<std::string> split_at_space(std::string_view text, int64_t most, bool from_right) {
  std::vector<std::string> parts;
  const auto trim = [](std::string_view rest, bool right) {
    return text_strip(rest, std::nullopt, !right, right);
  };
  std::string_view rest = trim(text, from_right);
  while (!rest.empty()) {
    if (most >= 0 && std::ssize(parts) == most) {
      parts.emplace_back(rest);
      break;
    }
    std::string_view word = rest;
    size_t length = 0;
    if (from_right) {
      while (length < rest.size()) {
        const std::string_view last = last_character(rest.substr(0, rest.size() - length));
        if (is_space_character(last)) break;
        length += last.size();
      }
      word = rest.substr(rest.size() - length);
      rest.remove_suffix(length);
    } else {
      while (length < rest.size() && !is_space_character(first_character(rest.substr(length))))
        length += first_character(rest.substr(length)).size();
      word = rest.substr(0, length);
      rest.remove_prefix(length);
    }
    parts.emplace_back(word);
    check_list_size(parts.size());
    rest = trim(rest, from_right);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

void check_text_size(int64_t bytes) {
  if (bytes > kMaxText) fail("a text of {} bytes, which is too large", bytes);
}
void check_list_size(int64_t items) {
  if (items > kMaxItems) fail("a list of {} items, which is too large", items);
}

int64_t text_length(std::string_view text) {
  return std::count_if(text.begin(), text.end(), starts_character);
}

size_t text_offset(std::string_view text, int64_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += utf8_length(text[at]);
  return at;
}

std::vector<std::string_view> text_characters(std::string_view text) {
  check_list_size(text_length(text));
  std::vector<std::string_view> out;
  for (; !text.empty(); text.remove_prefix(out.back().size())) out.push_back(first_character(text));
  return out;
}

bool is_python_space(uint32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

size_t leading_space(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && is_python_space(utf8_code_point(text, at)))
    at += utf8_length(text[at]);
  return at;
}

size_t trailing_space(std::string_view text) {
  while (!text.empty() && is_space_character(last_character(text)))
    text.remove_suffix(last_character(text).size());
  return text.size();
}

std::string_view text_strip(std::string_view text, const std::optional<std::string>& characters,
                            bool left, bool right) {
  if (!characters) {
    if (right) text = text.substr(0, trailing_space(text));
    if (left) text.remove_prefix(leading_space(text));
    return text;
  }
  const auto taken = [&](std::string_view character) {
    return characters->find(character) != std::string::npos;
  };
  while (left && !text.empty() && taken(first_character(text)))
    text.remove_prefix(first_character(text).size());
  while (right && !text.empty() && taken(last_character(text)))
    text.remove_suffix(last_character(text).size());
  return text;
}

std::vector<std::string> text_split(std::string_view text,
                                    const std::optional<std::string>& separator, int64_t most,
                                    bool from_right) {
  if (!separator) return split_at_space(text, most, from_right);
  if (separator->empty()) fail("split with an empty separator");
  std::vector<std::string> parts;
  while (most < 0 || std::ssize(parts) < most) {
    const size_t at = from_right ? text.rfind(*separator) : text.find(*separator);
    if (at == std::string_view::npos) break;
    const size_t after = at + separator->size();
    parts.emplace_back(from_right ? text.substr(after) : text.substr(0, at));
    check_list_size(parts.size());
    text = from_right ? text.substr(0, at) : text.substr(after);
  }
  parts.emplace_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> text_splitlines(std::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const uint32_t c = utf8_code_point(text, at);
    size_t next = at + utf8_length(text[at]);
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    if (ends) {
      if (c == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.emplace_back(text.substr(begin, (keep_ends ? next : at) - begin));
      check_list_size(lines.size());
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return lines;
}

std::string text_replace(std::string_view text, std::string_view from, std::string_view to,
                         int64_t most) {
  std::string out;
  if (from.empty()) {
    // An empty text is found before every character and at the end.
    for (const std::string_view character : text_characters(text)) {
      if (most != 0) out += to;
      if (most > 0) --most;
      out += character;
      check_text_size(out.size());
    }
    if (most != 0) out += to;
    return out;
  }
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string_view::npos && most != 0;
       at = text.find(from, begin)) {
    out.append(text, begin, at - begin);
    out += to;
    check_text_size(out.size());
    begin = at + from.size();
    if (most > 0) --most;
  }
  return out.append(text, begin, std::string_view::npos);
}

std::string text_repeat(std::string_view text, int64_t times) {
  std::string out;
  if (times <= 0 || text.empty()) return out;
  if (times > kMaxText) fail("a text repeated {} times, which is too large", times);
  check_text_size(std::ssize(text) * times);
  for (int64_t i = 0; i < times; ++i) out += text;
  return out;
}

std::string text_pad(std::string_view text, int64_t width, std::string_view fill, char alignment) {
  const int64_t missing = width - text_length(text);
  if (missing <= 0) return std::string(text);
  int64_t before = alignment == '>' ? missing : 0;
  if (alignment == '^') before = missing / 2 + (missing & width & 1);
  return text_repeat(fill, before) + std::string(text) + text_repeat(fill, missing - before);
}

std::string text_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out.push_back(c);
    }
  }
  check_text_size(out.size());
  return out;
}

}  // namespace orrery::text::jinja
