#include "actors/envs/latex_text.h"

#include <utility>
#include <vector>

#include "actors/envs/latex_words.h"

namespace orrery::actors {
namespace {

/// The one name for what a command says; for most, the command itself with a space
/// behind it, which ends its name.
std::string spelled(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kSame[] = {{"dfrac", "\\frac "},
                                                                     {"tfrac", "\\frac "},
                                                                     {"cfrac", "\\frac "},
                                                                     {"le", "\\leq "},
                                                                     {"ge", "\\geq "},
                                                                     {"ne", "\\neq "},
                                                                     {"lbrace", "\\{"},
                                                                     {"rbrace", "\\}"},
                                                                     {"lvert", "|"},
                                                                     {"rvert", "|"},
                                                                     {"vert", "|"},
                                                                     {"mid", "|"},
                                                                     {"ast", "*"},
                                                                     {"degree", "^\\circ "},
                                                                     {"varnothing", "\\emptyset "},
                                                                     {"rightarrow", "\\to "},
                                                                     {"percent", "%"},
                                                                     {"leqslant", "\\leq "},
                                                                     {"geqslant", "\\geq "}};
  for (const auto& [other, same] : kSame) {
    if (name == other) return std::string(same);
  }
  return "\\" + std::string(name) + " ";
}

class Speller {
 public:
  explicit Speller(std::string_view text) : text_(text) {}

  std::string spell() {
    while (at_ < text_.size()) step();
    std::string result;
    for (const std::string& token : tokens_) result += token;
    return result;
  }

 private:
  char next(size_t ahead = 1) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  void push(std::string token) {
    const bool number = token.size() == 1 && (is_digit(token[0]) || token[0] == '.');
    if (spaced_ && after_digit_ && number) tokens_.emplace_back(" ");  // "1 1/2" is not "11/2"
    spaced_ = false;
    after_digit_ = token.size() == 1 && is_digit(token[0]);
    tokens_.push_back(std::move(token));
  }

  void open(bool dropped) {
    dropped_.push_back(dropped);
    if (!dropped) push("{");
  }

  void close() {
    const bool dropped = !dropped_.empty() && dropped_.back();
    if (!dropped_.empty()) dropped_.pop_back();
    if (dropped) return;
    spaced_ = after_digit_ = false;
    const size_t count = tokens_.size();
    if (count >= 1 && tokens_[count - 1] == "{") {
      tokens_.pop_back();
    } else if (count >= 2 && tokens_[count - 2] == "{" && tokens_[count - 1] != "}") {
      tokens_.erase(tokens_.end() - 2);  // braces around one thing
    } else {
      tokens_.emplace_back("}");
    }
  }

  void command() {
    const std::string_view name = command_at(text_, at_);
    if (name.empty()) {
      const char c = next();
      at_ += 2;
      if (std::string_view(",;:! ()[]$").find(c) != std::string_view::npos && c != '\0') {
        spaced_ = spaced_ || c == ' ' || c == ',' || c == ';' || c == ':';
      } else if (c == '{' || c == '}' || c == '\\') {
        push(std::string("\\") + c);
      } else if (c != '\0') {
        push(std::string(1, c));
      }
      return;
    }
    at_ += 1 + name.size();
    if (is_text_command(name)) {
      at_ = skip_spaces(text_, at_);
      if (at_ < text_.size() && text_[at_] == '{') {
        ++at_;
        // Braces that say how far a power or a root goes are kept.
        const std::string before = tokens_.empty() ? "" : tokens_.back();
        open(before != "^" && before != "_" && before != "\\sqrt " && before != "\\frac ");
      }
    } else if (is_layout_command(name)) {
      if (at_ < text_.size() && text_[at_] == '.' && (name == "left" || name == "right")) ++at_;
    } else {
      push(spelled(name));
    }
  }

  /// Gives a power or an index of several digits its braces: x^{10} for x^10.
  void script() {
    push(std::string(1, text_[at_]));
    size_t end = ++at_;
    while (end < text_.size() && is_digit(text_[end])) ++end;
    if (end - at_ < 2) return;
    push("{");
    for (; at_ < end; ++at_) push(std::string(1, text_[at_]));
    tokens_.emplace_back("}");
    after_digit_ = false;
  }

  void step() {
    const char c = text_[at_];
    if (c == '\\') return command();
    if (c == '^' || c == '_') return script();
    if (c == '{') {
      open(/*dropped=*/false);
    } else if (c == '}') {
      close();
    } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '~') {
      spaced_ = true;
    } else if (c == '+' && tokens_.empty() && next() != '\0') {
      // a plus sign in front says nothing
    } else if (c == '.' && is_digit(next()) && (at_ == 0 || !is_digit(text_[at_ - 1]))) {
      push("0");
      tokens_.emplace_back(".");
      after_digit_ = false;
    } else if (c != '$') {
      push(std::string(1, c));
    }
    ++at_;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<std::string> tokens_;
  std::vector<bool> dropped_;
  bool spaced_ = false, after_digit_ = false;
};

}  // namespace

std::string canonical_latex(std::string_view plain) { return Speller(plain).spell(); }

}  // namespace orrery::actors
