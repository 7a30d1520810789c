// UTF-8 as the tokenizer needs it: strict checking, replacement of malformed bytes,
// code points in and out. Functions that take "valid" text trust it; everything that
// comes from outside goes through find_invalid_utf8 first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace orrery::text {

/// U+FFFD, what stands for bytes that are not UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// Offset of the first byte that is not part of well-formed UTF-8 (no surrogates,
/// nothing overlong), else npos.
size_t find_invalid_utf8(std::string_view text);

/// Bytes of the character that starts with `lead` in valid text: 1 to 4.
inline int utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The code point at `offset` of valid text.
uint32_t utf8_code_point(std::string_view text, size_t offset);

void append_utf8(uint32_t code_point, std::string& out);

/// Appends `bytes` to `out`, one U+FFFD for each maximal malformed part (the Unicode
/// standard's recommendation, as in Rust and Python). With `more_follows` an unfinished
/// character at the end is left; returns the bytes consumed.
size_t append_lossy_utf8(std::string_view bytes, bool more_follows, std::string& out);

/// Unicode White_Space.
bool is_white_space(uint32_t code_point);

/// A "word" character of regular expressions: Alphabetic, marks, decimal digits,
/// connectors, joiners.
bool is_word_character(uint32_t code_point);

}  // namespace orrery::text
