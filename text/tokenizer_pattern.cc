#include "text/tokenizer_pattern.h"

#include "core/error.h"

namespace orrery::text {

Pattern::Pattern(const JsonNode& node) {
  const JsonNode text = node.member("String"), expression = node.member("Regex");
  if (text.is_null() == expression.is_null())
    node.fail_here("must have one of the keys \"String\" and \"Regex\"");
  if (text.is_null()) {
    *this = regex(expression.as_string(), expression);
  } else {
    if (text.as_string().empty()) text.fail_here("an empty text matches nothing");
    literal_ = text.as_string();
  }
}

Pattern Pattern::literal(std::string text) {
  Pattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

Pattern Pattern::regex(std::string_view expression, const JsonNode& where) {
  Pattern pattern;
  pattern.regex_.emplace(expression, where.place());
  return pattern;
}

void Pattern::for_each_match(std::string_view text,
                             const std::function<void(size_t, size_t)>& on_match) const {
  if (regex_) return regex_->for_each_match(text, on_match);
  for (size_t at = text.find(literal_); at != std::string_view::npos;
       at = text.find(literal_, at + literal_.size())) {
    on_match(at, at + literal_.size());
  }
}

void check_growth(size_t made, size_t limit, const char* step) {
  if (made > limit) {
    fail("tokenizer.json: its {} makes more than {} bytes of a text: is the file damaged?", step,
         limit);
  }
}

std::string Pattern::replace_all(std::string_view text, std::string_view content,
                                 size_t limit) const {
  std::string out;
  size_t done = 0;
  for_each_match(text, [&](size_t begin, size_t end) {
    out += text.substr(done, begin - done);
    out += content;
    check_growth(out.size(), limit, "Replace");
    done = end;
  });
  out += text.substr(done);
  return out;
}

}  // namespace orrery::text
