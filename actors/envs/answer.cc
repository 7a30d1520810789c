#include "actors/envs/answer.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "actors/envs/answer_line.h"
#include "actors/envs/latex_words.h"

namespace orrery::actors {
namespace {

constexpr std::string_view kHashes = "####";

struct Found {
  size_t at = 0;
  MarkedAnswer answer;
};

/// The name of the box that begins with the backslash at `at`: \boxed or \fbox.
std::string_view box_at(std::string_view text, size_t at) {
  const std::string_view rest = text.substr(at + 1);
  for (const std::string_view name : {"boxed", "fbox"}) {
    // \boxed5 is a box, \boxedx another command
    if (rest.starts_with(name) && (rest.size() == name.size() || !is_letter(rest[name.size()])))
      return name;
  }
  return {};
}

/// The box that begins latest among those whose braces end; one pass, whatever is
/// nested or left open.
std::optional<Found> last_box(std::string_view text) {
  constexpr size_t kPlainBrace = std::string_view::npos;
  std::optional<Found> last;
  std::vector<std::pair<size_t, size_t>> open;  // where the command and the content begin
  const auto keep = [&](size_t at, size_t begin, size_t end) {
    if (!last || at > last->at) {
      last = Found{at, {MarkedAnswer::Mark::kBox, text.substr(begin, end - begin), {}}};
    }
  };
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '{') open.emplace_back(kPlainBrace, i);
    if (c == '}' && !open.empty()) {
      if (open.back().first != kPlainBrace) keep(open.back().first, open.back().second, i);
      open.pop_back();
    }
    if (c != '\\') {
      ++i;
      continue;
    }
    const std::string_view name = box_at(text, i);
    if (name.empty()) {
      // A brace behind a backslash is a character; of two backslashes the second may
      // begin a command.
      const bool brace = i + 1 < text.size() && (text[i + 1] == '{' || text[i + 1] == '}');
      const bool line_end =
          i + 2 < text.size() && text[i + 1] == '\\' && box_at(text, i + 1).empty();
      i += brace || line_end ? 2 : 1;
      continue;
    }
    size_t begin = i + 1 + name.size();
    begin = std::min(text.find_first_not_of(kBlank, begin), text.size());
    if (begin < text.size() && text[begin] == '{') {
      open.emplace_back(i, begin + 1);
      i = begin + 1;
    } else {  // \boxed 5
      const size_t end = std::min(text.find_first_of(" \t\r\n$}", begin), text.size());
      if (end > begin) keep(i, begin, end);
      i = std::max(end, begin);
    }
  }
  return last;
}

struct Hashes {
  std::optional<Found> answer, heading;
};

Hashes last_hashes(std::string_view text) {
  Hashes found;
  const size_t last_text = text.find_last_not_of(kBlank);
  for (size_t at = text.find(kHashes); at != std::string_view::npos; at = text.find(kHashes, at)) {
    size_t begin = at;
    while (begin < text.size() && text[begin] == '#') ++begin;
    const size_t end = std::min(text.find('\n', begin), text.size());
    // A line's last mark is the one that counts, so what lies between two is not looked
    // at twice.
    const std::string_view line =
        text.substr(begin, std::min(text.find(kHashes, begin), end) - begin);
    if (line.find_first_not_of(kBlank) != std::string_view::npos) {
      const AnswerLine says = read_answer_line(line, last_text < begin + line.size());
      const auto mark = says.heading ? MarkedAnswer::Mark::kHeading : MarkedAnswer::Mark::kHashes;
      (says.heading ? found.heading : found.answer) = Found{at, {mark, line, says.value}};
    }
    at = begin;
  }
  return found;
}

}  // namespace

std::optional<MarkedAnswer> last_boxed_answer(std::string_view plain) {
  const auto box = last_box(plain);
  return box ? std::optional(box->answer) : std::nullopt;
}

std::optional<MarkedAnswer> last_marked_answer(std::string_view plain) {
  const auto box = last_box(plain);
  const Hashes hashes = last_hashes(plain);
  if (hashes.answer && (!box || hashes.answer->at > box->at)) return hashes.answer->answer;
  if (box) return box->answer;
  return hashes.heading ? std::optional(hashes.heading->answer) : std::nullopt;
}

}  // namespace orrery::actors
