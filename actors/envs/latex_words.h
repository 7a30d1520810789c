// What LaTeX commands mean to the readers of numbers and answers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string_view>

#include "core/ascii.h"

namespace orrery::actors {

/// What strip() of other languages cuts off.
inline constexpr std::string_view kBlank = " \t\r\n\v\f";

template <size_t N>
bool contains(const std::string_view (&words)[N], std::string_view word) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

/// NUL behind the end.
inline char char_at(std::string_view text, size_t i) { return i < text.size() ? text[i] : '\0'; }
/// The letters that begin at `at`.
std::string_view word_at(std::string_view text, size_t at);

inline bool is_sign(char c) { return c == '-' || c == '+'; }
/// The offset behind the digits that begin at `at`.
size_t digits_end(std::string_view text, size_t at);

/// The letters of the command whose backslash is at `at`; empty for \, and the like,
/// and where no command begins.
std::string_view command_at(std::string_view text, size_t at);

/// Whether only the command's argument counts: \text, \mbox, \mathrm, ...
bool is_text_command(std::string_view name);
/// Whether the argument holds words, such as a unit, and never a symbol in bold.
bool is_words_command(std::string_view name);
/// Whether it is \frac in any size.
bool is_fraction_command(std::string_view name);
/// Whether it makes digits beside it part of an expression: \sqrt, \pi, \times, \sin,
/// ...
bool is_operator_command(std::string_view name);
/// Whether it changes nothing in the meaning: \left, \displaystyle, \quad, ...
bool is_layout_command(std::string_view name);

/// The bytes of the space at `at`: a blank, a tab, ~, "\,", "\ ", "\;", "\:" or "\!"; 0
/// when there is none.
size_t space_at(std::string_view text, size_t at);
/// The first offset from `at` on that has no such space.
size_t skip_spaces(std::string_view text, size_t at);

}  // namespace orrery::actors
