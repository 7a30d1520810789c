#include "actors/envs/latex_words.h"

#include <algorithm>

namespace orrery::actors {
namespace {

constexpr std::string_view kText[] = {"text",   "textbf",    "textit",     "textrm",      "textsf",
                                      "texttt", "textup",    "mbox",       "hbox",        "mathrm",
                                      "mathbf", "mathit",    "mathsf",     "boxed",       "fbox",
                                      "emph",   "underline", "textnormal", "operatorname"};
constexpr std::string_view kWords[] = {"text", "mbox", "hbox", "mathrm", "textrm", "textnormal"};
constexpr std::string_view kFractions[] = {"frac", "dfrac", "tfrac", "cfrac"};
constexpr std::string_view kOperators[] = {
    "sqrt",   "frac",   "dfrac",  "tfrac",  "cfrac",  "binom",    "dbinom", "tbinom", "choose",
    "over",   "cdot",   "times",  "div",    "pm",     "mp",       "sin",    "cos",    "tan",
    "cot",    "sec",    "csc",    "arcsin", "arccos", "arctan",   "sinh",   "cosh",   "tanh",
    "log",    "lg",     "ln",     "exp",    "bmod",   "pmod",     "mod",    "alpha",  "beta",
    "gamma",  "delta",  "theta",  "lambda", "mu",     "pi",       "phi",    "varphi", "omega",
    "infty",  "cup",    "cap",    "left",   "bigl",   "overline", "bar",    "vec",    "hat",
    "mathbf", "mathbb", "mathcal"};
constexpr std::string_view kLayout[] = {
    "left",  "right",        "middle",    "big",    "Big",   "bigg",  "Bigg",
    "bigl",  "bigr",         "Bigl",      "Bigr",   "biggl", "biggr", "Biggl",
    "Biggr", "displaystyle", "textstyle", "limits", "quad",  "qquad", "thinspace"};

}  // namespace

size_t digits_end(std::string_view text, size_t at) {
  while (at < text.size() && is_digit(text[at])) ++at;
  return at;
}

std::string_view word_at(std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size() && is_letter(text[end])) ++end;
  return text.substr(std::min(at, text.size()), end - at);
}

std::string_view command_at(std::string_view text, size_t at) {
  if (at >= text.size() || text[at] != '\\') return {};
  size_t end = at + 1;
  while (end < text.size() && is_letter(text[end])) ++end;
  return text.substr(at + 1, end - at - 1);
}

bool is_text_command(std::string_view name) { return contains(kText, name); }
bool is_words_command(std::string_view name) { return contains(kWords, name); }
bool is_fraction_command(std::string_view name) { return contains(kFractions, name); }
bool is_operator_command(std::string_view name) { return contains(kOperators, name); }
bool is_layout_command(std::string_view name) { return contains(kLayout, name); }

size_t space_at(std::string_view text, size_t at) {
  if (at >= text.size()) return 0;
  if (text[at] == ' ' || text[at] == '\t' || text[at] == '~') return 1;
  if (text[at] != '\\' || at + 1 >= text.size()) return 0;
  return std::string_view(",;:! ").find(text[at + 1]) != std::string_view::npos ? 2 : 0;
}

size_t skip_spaces(std::string_view text, size_t at) {
  for (size_t length = space_at(text, at); length > 0; length = space_at(text, at)) at += length;
  return at;
}

}  // namespace orrery::actors
