// UTF-8 for the tokenizer: strict checking, replacement of malformed bytes, reading and
// writing of code points. Functions that take "valid" text trust it; text from outside
// goes through find_invalid_utf8 first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/ascii.h"

namespace orrery::text {

/// U+FFFD, which replaces bytes that are not UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// The offset of the first byte that is not part of well-formed UTF-8 (no surrogates,
/// no overlong forms), else npos.
size_t find_invalid_utf8(std::string_view text);

/// The char that holds the lowest eight bits of `byte`.
inline char char_of(uint32_t byte) { return static_cast<char>(byte); }

/// Whether `c` is a byte of a character in valid text, but not its first.
inline bool continues_character(char c) { return (byte_of(c) & 0xC0) == 0x80; }

/// How many bytes the character has that starts with `lead` in valid text: 1 to 4.
inline size_t utf8_length(char lead) {
  const uint8_t byte = byte_of(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The code point at `offset` of valid text.
uint32_t utf8_code_point(std::string_view text, size_t offset);

void append_utf8(uint32_t code_point, std::string& out);

/// Appends `bytes` to `out`, with one U+FFFD in place of each maximal malformed part
/// (the Unicode standard recommends this; Rust and Python do it). With `more_follows`
/// an unfinished character at the end is left out. Returns how many bytes were
/// consumed.
size_t append_lossy_utf8(std::string_view bytes, bool more_follows, std::string& out);

/// Unicode's property White_Space.
bool is_white_space(uint32_t code_point);

/// A "word" character of regular expressions: Alphabetic, a mark, a decimal digit, a
/// connector or a joiner.
bool is_word_character(uint32_t code_point);

}  // namespace orrery::text
