#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/ascii.h"
#include "core/error.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

bool is_name_start(char c) { return is_letter(c) || c == '_' || !is_ascii(c); }

class Lexer {
 public:
  explicit Lexer(std::string_view text) {
    if (find_invalid_utf8(text) != std::string::npos) fail("the template is not UTF-8");
    // As in Jinja, every line ends in \n, and the last \n is dropped.
    for (size_t i = 0; i < text.size(); ++i) {
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
      } else if (kind == '%' && begins_raw()) {
        raw();
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
    const std::string_view passed = in_.substr(at_, count);
    line_ += std::count(passed.begin(), passed.end(), '\n');
    at_ += count;
  }
  void push(TokenKind kind, std::string text, int64_t number = 0, double real = 0) {
    tokens_.push_back({kind, std::move(text), number, real, line_});
  }
  void skip_space() { advance(leading_space(in_.substr(at_))); }
  /// Skips white space at `at`, the word, and white space after it; returns where that
  /// ends, or npos when the word does not stand there.
  size_t after_word(size_t at, std::string_view word) const {
    at += leading_space(in_.substr(at));
    if (!in_.substr(at).starts_with(word)) return std::string_view::npos;
    at += word.size();
    return at + leading_space(in_.substr(at));
  }

  size_t find_open() const {
    for (size_t at = in_.find('{', at_); at != std::string_view::npos && at + 1 < in_.size();
         at = in_.find('{', at + 1)) {
      if (in_[at + 1] == '{' || in_[at + 1] == '%' || in_[at + 1] == '#') return at;
    }
    return std::string_view::npos;
  }

  /// Adds the text before the next tag, without the white space that the tag removes.
  void text(size_t open) {
    const size_t end = std::min(open, in_.size());
    std::string_view data = in_.substr(at_, end - at_);
    if (open != std::string_view::npos) {
      const char sign = open + 2 < in_.size() ? in_[open + 2] : ' ';
      if (sign == '-') {
        data = data.substr(0, trailing_space(data));
      } else if (sign != '+' && in_[open + 1] != '{') {
        // lstrip_blocks removes the indentation before a tag or a comment.
        const size_t newline = data.rfind('\n');
        const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
        const bool blank = leading_space(data.substr(begin)) == data.size() - begin;
        if (blank && (begin > 0 || at_line_start_)) data = data.substr(0, begin);
      }
    }
    if (!data.empty()) push(TokenKind::kText, std::string(data));
    advance(end - at_);
  }

  /// Removes white space after the end of a tag: all of it after "-", else one newline
  /// after a tag or a comment (trim_blocks).
  void after(bool minus, bool trims_newline) {
    const size_t begin = at_;
    if (minus) {
      skip_space();
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

  /// Whether `raw` and the tag's end follow the {% before the current position.
  bool begins_raw() const {
    const size_t end = after_word(at_, "raw");
    if (end == std::string_view::npos) return false;
    const std::string_view rest = in_.substr(end);
    return rest.starts_with("%}") || rest.starts_with("-%}");
  }

  /// Adds the text up to {% endraw %} unchanged.
  void raw() {
    at_line_start_ = false;
    advance(after_word(at_, "raw") - at_);
    const bool minus = in_[at_] == '-';
    advance(minus ? 3 : 2);
    if (minus) skip_space();
    at_line_start_ = in_[at_ - 1] == '\n';
    for (size_t open = in_.find("{%", at_); open != std::string_view::npos;
         open = in_.find("{%", open + 1)) {
      size_t end = open + 2;
      if (end < in_.size() && (in_[end] == '-' || in_[end] == '+')) ++end;
      end = after_word(end, "endraw");
      if (end == std::string_view::npos) continue;
      const std::string_view rest = in_.substr(end);
      const size_t sign = rest.starts_with("-%}") || rest.starts_with("+%}") ? 1 : 0;
      if (!rest.substr(sign).starts_with("%}")) continue;
      text(open);
      advance(end + sign + 2 - at_);
      return after(sign == 1 && rest[0] == '-', sign == 0);
    }
    refuse("a raw block without its end");
  }

  void code(char close) {
    push(close == '}' ? TokenKind::kOutputBegin : TokenKind::kTagBegin, "");
    std::string open;  // the brackets to be closed, since }} may also close two dicts
    while (true) {
      skip_space();
      if (at_ >= in_.size()) refuse("a tag without its end");
      const std::string_view rest = in_.substr(at_);
      const size_t sign = rest[0] == '-' || (rest[0] == '+' && close == '%') ? 1 : 0;
      if (open.empty() && rest.size() >= sign + 2 && rest[sign] == close && rest[sign + 1] == '}') {
        push(close == '}' ? TokenKind::kOutputEnd : TokenKind::kTagEnd, "");
        const bool minus = rest[0] == '-', plus = rest[0] == '+';
        advance(sign + 2);
        return after(minus, close == '%' && !plus);
      }
      if (rest[0] == '(') open += ')';
      if (rest[0] == '[') open += ']';
      if (rest[0] == '{') open += '}';
      if (rest[0] == ')' || rest[0] == ']' || rest[0] == '}') {
        if (open.empty() || open.back() != rest[0]) refuse(fmt::format("unexpected '{}'", rest[0]));
        open.pop_back();
      }
      token(rest);
    }
  }

  void token(std::string_view rest) {
    const char c = rest[0];
    if (c == '\'' || c == '"') return string(rest);
    if (is_name_start(c)) return name(rest);
    if (is_digit(c)) return number(rest);
    static constexpr std::array<std::string_view, 6> kLong = {"==", "!=", "<=", ">=", "//", "**"};
    const bool is_long = std::find(kLong.begin(), kLong.end(), rest.substr(0, 2)) != kLong.end();
    if (!is_long && std::string_view("+-*/%~<>=|.,:;()[]{}").find(c) == std::string_view::npos) {
      refuse(fmt::format("unexpected character '{}'", c));
    }
    push(TokenKind::kOperator, std::string(rest.substr(0, is_long ? 2 : 1)));
    advance(is_long ? 2 : 1);
  }

  void name(std::string_view rest) {
    size_t length = 0;
    while (length < rest.size() && (is_name_start(rest[length]) || is_digit(rest[length]))) {
      if (!is_ascii(rest[length]) && !is_word_character(utf8_code_point(rest, length))) break;
      length += utf8_length(rest[length]);
    }
    if (length == 0) refuse("unexpected character");
    push(TokenKind::kName, std::string(rest.substr(0, length)));
    advance(length);
  }

  /// Length of a run of `allowed` digits, which single underscores may separate.
  static size_t digits(std::string_view text, std::string_view allowed) {
    size_t length = 0;
    while (length < text.size()) {
      const bool joined = text[length] == '_' && length > 0 && length + 1 < text.size();
      if (allowed.find(text[joined ? length + 1 : length]) == std::string_view::npos) break;
      length += joined ? 2 : 1;
    }
    return length;
  }

  void number(std::string_view rest) {
    static constexpr std::string_view kDigits = "0123456789", kHex = "0123456789abcdefABCDEF";
    const bool behind_dot = at_ > 0 && in_[at_ - 1] == '.';
    size_t length = digits(rest, kDigits);
    bool real = false;
    if (!behind_dot) {
      if (const size_t more =
              rest.substr(length).starts_with('.') ? digits(rest.substr(length + 1), kDigits) : 0) {
        length += more + 1;
        real = true;
      }
      if (length < rest.size() && (rest[length] == 'e' || rest[length] == 'E')) {
        size_t exponent = length + 1;
        if (exponent < rest.size() && (rest[exponent] == '+' || rest[exponent] == '-')) ++exponent;
        if (const size_t more = digits(rest.substr(std::min(exponent, rest.size())), kDigits)) {
          length = exponent + more;
          real = true;
        }
      }
    }
    int base = 10;
    size_t begin = 0;
    if (!real && rest[0] == '0') {
      const char letter = rest.size() > 1 ? char_of(rest[1] | 0x20) : ' ';
      base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
      const std::string_view allowed = base == 16  ? kHex
                                       : base == 8 ? "01234567"
                                       : base == 2 ? "01"
                                                   : "0";
      size_t skip = base == 10 ? 0 : 2;
      if (base != 10 && rest.size() > 2 && rest[2] == '_') ++skip;
      const size_t found = digits(rest.substr(std::min(skip, rest.size())), allowed);
      if (found == 0) {
        base = 10;
        length = 1;
      } else {
        begin = skip;
        length = skip + found;
      }
    }
    std::string text(rest.substr(begin, length - begin));
    std::erase(text, '_');
    if (real) {
      double value = 0;
      if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc())
        refuse("a number that is too large or too small");
      push(TokenKind::kFloat, "", 0, value);
    } else {
      int64_t value = 0;
      if (std::from_chars(text.data(), text.data() + text.size(), value, base).ec != std::errc())
        refuse("a number that is too large");
      push(TokenKind::kInteger, "", value);
    }
    advance(length);
  }

  void string(std::string_view rest) {
    std::string out;
    size_t i = 1;
    while (i < rest.size() && rest[i] != rest[0]) {
      if (rest[i] != '\\') {
        out.push_back(rest[i++]);
      } else if (++i < rest.size()) {
        i += escape(rest.substr(i), out);
      }
    }
    if (i >= rest.size()) refuse("a string without its end");
    push(TokenKind::kString, out);
    advance(i + 1);
  }

  /// Appends the meaning of the escape after a backslash, and returns the length of the
  /// escape. The escapes are Python's; an unknown one stays as it is written.
  size_t escape(std::string_view rest, std::string& out) const {
    static constexpr std::string_view kEscapes = "ntrabfv\\'\"", kMeanings = "\n\t\r\a\b\f\v\\'\"";
    const char c = rest[0];
    if (const size_t found = kEscapes.find(c); found != std::string_view::npos) {
      out.push_back(kMeanings[found]);
      return 1;
    }
    if (c == '\n') return 1;
    if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      size_t length = 0;
      while (length < 3 && length < rest.size() && rest[length] >= '0' && rest[length] <= '7')
        code = code * 8 + byte_of(rest[length++]) - '0';
      append_utf8(code, out);
      return length;
    }
    if (const size_t wanted = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0) {
      uint32_t code = 0;
      const std::string_view hex = rest.substr(1, wanted);
      const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
      if (hex.size() != wanted || end != hex.data() + hex.size() || error != std::errc() ||
          code > 0x10FFFF)
        refuse("an escape in a string that is cut short");
      if (code >= 0xD800 && code < 0xE000)
        refuse("the escape of a surrogate in a string is not supported");
      append_utf8(code, out);
      return wanted + 1;
    }
    if (c == 'N') refuse("the escape \\N in a string is not supported");
    out.push_back('\\');
    if (is_ascii(c)) return 0;
    // Python reads a character that is not ASCII as its escaped spelling here.
    const uint32_t code = utf8_code_point(rest, 0);
    out += code < 0x100     ? fmt::format("x{:02x}", code)
           : code < 0x10000 ? fmt::format("u{:04x}", code)
                            : fmt::format("U{:08x}", code);
    return utf8_length(c);
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

}  // namespace orrery::text::jinja
