#include "actors/json_members.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace orrery::actors {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// The offset behind the closing quote of the string that begins at `at` in valid JSON.
size_t end_of_string(std::string_view text, size_t at) {
  for (++at; text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return at + 1;
}

/// The offset of the comma or bracket that ends the value that begins at `at`.
size_t end_of_value(std::string_view text, size_t at) {
  size_t depth = 0;
  for (;; ++at) {
    switch (text[at]) {
      case '"':
        at = end_of_string(text, at) - 1;
        break;
      case '{':
      case '[':
        ++depth;
        break;
      case '}':
      case ']':
        if (depth == 0) return at;
        --depth;
        break;
      case ',':
        if (depth == 0) return at;
        break;
      default:
        break;
    }
  }
}

}  // namespace

std::string_view json_trimmed(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<JsonMember> json_members(std::string_view line) {
  const std::string_view text = json_trimmed(line);
  // Checks all of it, UTF-8 and the range of numbers too, and keeps nothing.
  if (!nlohmann::json::accept(text)) fail("is not valid JSON");
  if (text.front() != '{') fail("is not a JSON object");
  std::vector<JsonMember> members;
  size_t at = text.find_first_not_of(kSpace, 1);
  while (text[at] != '}') {
    const size_t key_end = end_of_string(text, at);
    JsonMember member;
    member.key = nlohmann::json::parse(text.substr(at, key_end - at)).get<std::string>();
    const size_t colon = text.find_first_not_of(kSpace, key_end);
    const size_t begin = text.find_first_not_of(kSpace, colon + 1), end = end_of_value(text, begin);
    member.value = json_trimmed(text.substr(begin, end - begin));
    members.push_back(std::move(member));
    at = text[end] == ',' ? text.find_first_not_of(kSpace, end + 1) : end;
  }
  return members;
}

const JsonMember* find_member(const std::vector<JsonMember>& members, std::string_view key) {
  const JsonMember* found = nullptr;
  for (const JsonMember& member : members) {
    if (member.key == key) found = &member;
  }
  return found;
}

}  // namespace orrery::actors
