#include "actors/envs/expression.h"

#include <algorithm>
#include <iterator>

#include "actors/envs/latex_text.h"
#include "actors/envs/latex_words.h"

namespace orrery::actors {
namespace {

/// The offset behind the group that begins with "{" at `at`; npos when it does not end.
size_t group_end(std::string_view text, size_t at) {
  int depth = 0;
  for (size_t i = at; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

/// The bytes of \text{.} and the like at the end: punctuation that was set as text.
size_t punctuation_group(std::string_view text) {
  if (!text.ends_with('}')) return 0;
  const size_t open = text.find_last_not_of(" .,;", text.size() - 2);
  if (open == std::string_view::npos || text[open] != '{') return 0;
  size_t command = open;
  while (command > 0 && is_letter(text[command - 1])) --command;
  if (command == 0 || !is_text_command(text.substr(command, open - command)) ||
      text[--command] != '\\')
    return 0;
  return text.size() - command;
}

/// Cuts off what stands around an answer without being part of it.
std::string_view bare(std::string_view text) {
  constexpr std::string_view kBefore[] = {"$", "\\(", "\\[", "**", "`", "\""};
  constexpr std::string_view kAfter[] = {"$", "\\)", "\\]", "**", "`", "\"", ".", ";", ","};
  for (size_t before = text.size() + 1; text.size() < before;) {
    before = text.size();
    while (!text.empty() && kBlank.find(text.front()) != std::string_view::npos)
      text.remove_prefix(1);
    while (!text.empty() && kBlank.find(text.back()) != std::string_view::npos)
      text.remove_suffix(1);
    for (const std::string_view mark : kBefore) {
      if (text.starts_with(mark)) text.remove_prefix(mark.size());
    }
    if (text.size() > 1 && text.front() == '=') text.remove_prefix(1);
    // A group like \text{.} that is the whole text is not punctuation.
    if (const size_t length = punctuation_group(text); length < text.size())
      text.remove_suffix(length);
    for (const std::string_view mark : kAfter) {
      // "\$" at the end is a currency, "\;" a space
      const bool escaped = text.size() > mark.size() && text[text.size() - mark.size() - 1] == '\\';
      if (text.ends_with(mark) && !escaped) text.remove_suffix(mark.size());
    }
  }
  return text;
}

/// Cuts off braces around all of an answer, and a command like \text with them.
std::string_view unwrapped(std::string_view text) {
  constexpr int kDeepest = 8;
  text = bare(text);
  for (int i = 0; i < kDeepest; ++i) {
    const std::string_view command = command_at(text, 0);
    const size_t open = is_text_command(command) ? 1 + command.size() : 0;
    if (open >= text.size() || text[open] != '{' || group_end(text, open) != text.size()) break;
    text = bare(text.substr(open + 1, text.size() - open - 2));
  }
  return text;
}

/// Takes "x=" from "x = 5" and leaves the rest in `text`. A name is one or two letters
/// or a Greek one, perhaps with an index.
std::string take_name(std::string_view& text) {
  constexpr std::string_view kGreek[] = {"alpha", "beta", "gamma", "delta", "theta", "lambda",
                                         "mu",    "phi",  "rho",   "sigma", "omega"};
  const std::string_view command = command_at(text, 0);
  size_t end = 0;
  if (!command.empty()) {
    if (std::find(std::begin(kGreek), std::end(kGreek), command) == std::end(kGreek)) return "";
    end = 1 + command.size();
  } else {
    while (end < text.size() && end < 2 && is_letter(text[end])) ++end;
  }
  if (end == 0) return "";
  if (end < text.size() && text[end] == '_') {
    const size_t index = end + 1;
    if (index >= text.size()) return "";
    end = text[index] == '{' ? group_end(text, index) : index + 1;
    if (end == std::string_view::npos) return "";
  }
  const std::string_view name = text.substr(0, end);
  end = skip_spaces(text, end);
  const bool in = command_at(text, end) == "in";
  if (!in && (end >= text.size() || text[end] != '=')) return "";
  end += in ? 3 : 1;
  const std::string_view rest = bare(text.substr(end));
  if (rest.empty()) return "";
  text = rest;
  return canonical_latex(name) + (in ? "\\in " : "=");
}

/// The bytes of what separates elements at `at`: a comma, a parenthesis, the end of a
/// matrix's row, ...
size_t delimiter(std::string_view text, size_t at) {
  if (std::string_view(",;()[]&").find(text[at]) != std::string_view::npos) return 1;
  if (text[at] != '\\' || at + 1 >= text.size()) return 0;
  if (text[at + 1] == '\\' || text[at + 1] == '{' || text[at + 1] == '}') return 2;
  const std::string_view command = command_at(text, at);
  const size_t end = at + 1 + command.size();
  if (command == "cup" || command == "cap" || command == "lbrace" || command == "rbrace")
    return end - at;
  if ((command == "begin" || command == "end") && end < text.size() && text[end] == '{') {
    const size_t close = text.find('}', end);
    return close == std::string_view::npos ? 0 : close + 1 - at;
  }
  return 0;
}

Expression::Element element_of(std::string_view text) {
  // The \left or \right of the parenthesis behind it.
  const size_t last = text.rfind('\\');
  if (last != std::string_view::npos) {
    const std::string_view command = command_at(text, last);
    if (is_layout_command(command) && last + 1 + command.size() == text.size())
      text = text.substr(0, last);
  }
  Expression::Element element{canonical_latex(text), std::nullopt};
  // Digits are compared as they stand: "000" may be a group of "1,000".
  if (!std::all_of(element.text.begin(), element.text.end(), is_digit))
    element.quantity = read_quantity(text);
  return element;
}

std::vector<Expression::Element> split(std::string_view text) {
  std::vector<Expression::Element> elements;
  size_t begin = 0;
  int depth = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = depth == 0 ? delimiter(text, at) : 0;
    if (length > 0) {
      elements.push_back(element_of(text.substr(begin, at - begin)));
      elements.push_back({canonical_latex(text.substr(at, length)), std::nullopt});
      at += length;
      begin = at;
      continue;
    }
    if (text[at] == '{') ++depth;
    if (text[at] == '}' && depth > 0) --depth;
    at += text[at] == '\\' ? 2 : 1;
  }
  elements.push_back(element_of(text.substr(begin)));
  return elements;
}

/// What is inside the parentheses around all of `text`; empty without such parentheses,
/// as in "(a)(b)".
std::string_view in_parentheses(std::string_view text) {
  const auto cut = [&](std::string_view before, std::string_view after) {
    if (text.size() < before.size() + after.size() || !text.starts_with(before) ||
        !text.ends_with(after))
      return false;
    text = text.substr(before.size(), text.size() - before.size() - after.size());
    return true;
  };
  if (!cut("\\left(", "\\right)") && !cut("(", ")")) return {};
  return text.find_first_of("()") == std::string_view::npos ? unwrapped(text) : std::string_view{};
}

/// Cuts off "Answer:", "The answer is" and the like.
std::string_view without_announcement(std::string_view text) {
  for (const std::string_view words :
       {"the final answer is", "the answer is", "final answer:", "answer:"}) {
    const std::string_view head = text.substr(0, words.size());
    const bool same =
        head.size() == words.size() && std::equal(head.begin(), head.end(), words.begin(),
                                                  [](char a, char b) { return to_lower(a) == b; });
    if (same && text.size() > words.size() && !is_letter(text[words.size()])) {
      text.remove_prefix(words.size());
      while (text.starts_with(':') || text.starts_with(' ')) text.remove_prefix(1);
      return text;
    }
  }
  return text;
}

}  // namespace

bool Expression::empty() const {
  return !quantity && std::all_of(elements.begin(), elements.end(),
                                  [](const Element& e) { return e.text.empty() && !e.quantity; });
}

Expression parse_expression(std::string_view plain) {
  Expression expression;
  std::string_view body = unwrapped(without_announcement(unwrapped(plain)));
  expression.name = take_name(body);
  body = unwrapped(body);
  expression.quantity = read_quantity(body);
  if (const std::string_view inner = in_parentheses(body); !inner.empty()) {
    // A letter in parentheses is a choice: (C) is C. A number there is that number.
    if (inner.size() == 1 && is_letter(inner.front())) body = inner;
    if (!expression.quantity) expression.quantity = read_quantity(inner);
  }
  if (!expression.quantity) {
    // \$5\text{ cm} is no quantity, and so nothing else either.
    const std::string_view rest = bare(without_unit(body, expression.unit));
    if (!expression.unit.empty() && !read_quantity(rest)) {
      body = rest;
    } else {
      expression.unit.clear();
    }
  }
  expression.elements = split(body);
  return expression;
}

bool same(const Expression& a, const Expression& b) {
  if (a.empty() || b.empty()) return false;
  if (!a.name.empty() && !b.name.empty() && a.name != b.name) return false;
  if (a.quantity && b.quantity && same(*a.quantity, *b.quantity)) return true;
  if (!a.unit.empty() && !b.unit.empty() && a.unit != b.unit) return false;
  return std::equal(a.elements.begin(), a.elements.end(), b.elements.begin(), b.elements.end(),
                    [](const Expression::Element& x, const Expression::Element& y) {
                      return x.text == y.text ||
                             (x.quantity && y.quantity && same(*x.quantity, *y.quantity));
                    });
}

}  // namespace orrery::actors
