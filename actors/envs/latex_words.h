// Which LaTeX commands mean what to the readers of numbers and answers.
#pragma once

#include <cstddef>
#include <string_view>

namespace orrery::actors {

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

inline bool is_sign(char c) { return c == '-' || c == '+'; }
/// Behind the digits from `at` on.
size_t digits_end(std::string_view text, size_t at);

/// The letters of the command that begins with the backslash at `at`; empty for \, and
/// the like, and elsewhere.
std::string_view command_at(std::string_view text, size_t at);

/// \text, \mbox, \mathrm, ...: only their argument counts.
bool is_text_command(std::string_view name);
/// Those of them that hold words, a unit for one, and never a symbol in bold.
bool is_words_command(std::string_view name);
/// \frac in any size.
bool is_fraction_command(std::string_view name);
/// What makes digits beside it part of an expression: \sqrt, \pi, \times, \sin, ...
bool is_operator_command(std::string_view name);
/// \left, \displaystyle, \quad, ...: changes nothing that is meant.
bool is_layout_command(std::string_view name);

/// Bytes of the space at `at`: blank, tab, ~, "\,", "\ ", "\;", "\:", "\!"; 0 when
/// there is none.
size_t space_at(std::string_view text, size_t at);
/// The first place at or behind `at` without such a space.
size_t skip_spaces(std::string_view text, size_t at);

}  // namespace orrery::actors
