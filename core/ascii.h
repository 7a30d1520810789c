// Bytes of text by what they are in ASCII, whatever the locale. A byte of a longer
// UTF-8 character is none of these. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace orrery {

/// Whether a char is signed depends on the machine, so that comparing one with a number
/// needs this conversion first.
constexpr uint8_t byte_of(char c) { return static_cast<uint8_t>(c); }

constexpr bool is_ascii(char c) { return byte_of(c) < 0x80; }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || is_upper(c); }
/// Space, tab, and whatever else moves to another column or line.
constexpr bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
/// Below the space: tab, new line, escape, NUL, ...; not DEL.
constexpr bool is_control(char c) { return byte_of(c) < ' '; }
constexpr char kDelete = '\x7F';

constexpr char to_lower(char c) { return is_upper(c) ? static_cast<char>(c + ('a' - 'A')) : c; }
constexpr char to_upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - ('a' - 'A')) : c;
}

inline std::string to_lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = to_lower(c);
  return lower;
}
inline std::string to_upper(std::string_view text) {
  std::string upper(text);
  for (char& c : upper) c = to_upper(c);
  return upper;
}

/// The digit of a value from 0 to 9, and the value of a digit.
constexpr char to_digit(int64_t value) { return static_cast<char>('0' + value); }
constexpr int digit_value(char digit) { return digit - '0'; }

/// The first `limit` bytes for a message, less the UTF-8 character at their end, which
/// may have been cut in two; all of a shorter text.
inline std::string_view first_characters(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text;
  text = text.substr(0, limit);
  while (!text.empty() && (byte_of(text.back()) & 0xC0) == 0x80) text.remove_suffix(1);
  if (!text.empty() && !is_ascii(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace orrery
