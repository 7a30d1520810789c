#include "models/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/error.h"

namespace orrery::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) {
    for (size_t i = 0; i < text.size(); ++i) {  // as Jinja: every line ends in \n, and the last \n is dropped
      if (text[i] == '\r') {
        source_.push_back('\n');
        if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
      } else {
        source_.push_back(text[i]);
      }
    }
    if (source_.ends_with('\n')) source_.pop_back();
    in_ = source_;
  }

  std::vector<Token> run() {
    while (at_ < in_.size()) {
      const size_t open = find_open();
      text(open);
      if (open == std::string_view::npos) break;
      const char kind = in_[open + 1];
      advance(open + 2 - at_);
      if (at_ < in_.size() && (in_[at_] == '-' || in_[at_] == '+')) advance(1);
      if (kind == '#') {
        comment();
      } else {
        code(kind == '{' ? '}' : '%');
      }
    }
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { fail("line {}: {}", line_, what); }

  void advance(size_t count) {
    line_ += static_cast<int>(std::count(in_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         in_.begin() + static_cast<std::ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
  }
  void push(TokenKind kind, std::string text, int64_t number = 0) {
    tokens_.push_back({kind, std::move(text), number, line_});
  }

  size_t find_open() const {
    for (size_t at = in_.find('{', at_); at != std::string_view::npos && at + 1 < in_.size();
         at = in_.find('{', at + 1)) {
      if (in_[at + 1] == '{' || in_[at + 1] == '%' || in_[at + 1] == '#') return at;
    }
    return std::string_view::npos;
  }

  /// The text up to the next tag, less the white space that the tag takes.
  void text(size_t open) {
    const size_t end = std::min(open, in_.size());
    std::string_view data = in_.substr(at_, end - at_);
    if (open != std::string_view::npos) {
      const char sign = open + 2 < in_.size() ? in_[open + 2] : ' ';
      if (sign == '-') {
        while (!data.empty() && is_space(data.back())) data.remove_suffix(1);
      } else if (sign != '+' &&
                 in_[open + 1] != '{') {  // lstrip_blocks: the indentation before a tag or a comment
        const size_t newline = data.rfind('\n');
        const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
        const bool blank =
            std::all_of(data.begin() + static_cast<std::ptrdiff_t>(begin), data.end(), is_space);
        if (blank && (begin > 0 || at_line_start_)) data = data.substr(0, begin);
      }
    }
    if (!data.empty()) push(TokenKind::kText, std::string(data));
    advance(end - at_);
  }

  /// After the end of a tag: "-" takes all white space, a tag or comment without it one newline
  /// (trim_blocks).
  void after(bool minus, bool trims_newline) {
    const size_t begin = at_;
    if (minus) {
      while (at_ < in_.size() && is_space(in_[at_])) advance(1);
    } else if (trims_newline && at_ < in_.size() && in_[at_] == '\n') {
      advance(1);
    }
    at_line_start_ = at_ > begin && in_[at_ - 1] == '\n';
  }

  void comment() {
    const size_t close = in_.find("#}", at_);
    if (close == std::string_view::npos) refuse("a comment without its end");
    const char sign = close > at_ ? in_[close - 1] : ' ';
    advance(close + 2 - at_);
    after(sign == '-', sign != '+');
  }

  void code(char close) {
    push(close == '}' ? TokenKind::kOutputBegin : TokenKind::kTagBegin, "");
    int depth = 0;  // of brackets: }} may also close two dicts
    while (true) {
      while (at_ < in_.size() && is_space(in_[at_])) advance(1);
      if (at_ >= in_.size()) refuse("a tag without its end");
      const std::string_view rest = in_.substr(at_);
      const size_t sign = rest[0] == '-' || (rest[0] == '+' && close == '%') ? 1 : 0;
      if (depth == 0 && rest.size() >= sign + 2 && rest[sign] == close && rest[sign + 1] == '}') {
        push(close == '}' ? TokenKind::kOutputEnd : TokenKind::kTagEnd, "");
        const bool minus = rest[0] == '-', plus = rest[0] == '+';
        advance(sign + 2);
        return after(minus, close == '%' && !plus);
      }
      if (rest[0] == '(' || rest[0] == '[' || rest[0] == '{') ++depth;
      if (rest[0] == ')' || rest[0] == ']' || rest[0] == '}') --depth;
      token(rest);
    }
  }

  void token(std::string_view rest) {
    const char c = rest[0];
    if (c == '\'' || c == '"') return string(rest);
    size_t length = 0;
    if (is_name_start(c)) {
      while (length < rest.size() && (is_name_start(rest[length]) || is_digit(rest[length]))) ++length;
      push(TokenKind::kName, std::string(rest.substr(0, length)));
      return advance(length);
    }
    if (is_digit(c)) {
      int64_t number = 0;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
      length = static_cast<size_t>(end - rest.data());
      if (error != std::errc()) refuse("a number that is too large");
      if (length + 1 < rest.size() && rest[length] == '.' && is_digit(rest[length + 1]))
        refuse("a number with a fraction");
      push(TokenKind::kInteger, "", number);
      return advance(length);
    }
    static constexpr std::array<std::string_view, 6> kLong = {"==", "!=", "<=", ">=", "//", "**"};
    const bool is_long = std::find(kLong.begin(), kLong.end(), rest.substr(0, 2)) != kLong.end();
    if (!is_long && std::string_view("+-*/%~<>=|.,:()[]{}").find(c) == std::string_view::npos) {
      refuse(fmt::format("unexpected character '{}'", c));
    }
    push(TokenKind::kOperator, std::string(rest.substr(0, is_long ? 2 : 1)));
    advance(is_long ? 2 : 1);
  }

  void string(std::string_view rest) {
    std::string out;
    size_t i = 1;
    for (; i < rest.size() && rest[i] != rest[0]; ++i) {
      if (rest[i] != '\\') {
        out.push_back(rest[i]);
        continue;
      }
      if (++i >= rest.size()) break;
      static constexpr std::string_view kEscapes = "ntr\\'\"", kMeanings = "\n\t\r\\'\"";
      const size_t escape = kEscapes.find(rest[i]);
      if (escape == std::string_view::npos) refuse(fmt::format("the escape \\{} in a string", rest[i]));
      out.push_back(kMeanings[escape]);
    }
    if (i >= rest.size()) refuse("a string without its end");
    push(TokenKind::kString, out);
    advance(i + 1);
  }

  std::string source_;
  std::string_view in_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize_template(std::string_view text) { return Lexer(text).run(); }

}  // namespace orrery::jinja
