#include "text/tokenizer_utf8.h"

#include <utf8proc.h>

namespace orrery::text {
namespace {

enum class Form { kComplete, kMalformed, kUnfinished };

struct Unit {
  size_t length;  // bytes of the character, or of the maximal malformed part
  Form form;
};

/// Follows table 3-7 of the Unicode standard, which has the second bytes that a lead
/// byte allows.
Unit next_unit(std::string_view bytes, size_t offset) {
  const auto at = [&](size_t i) { return byte_of(bytes[offset + i]); };
  const unsigned lead = at(0);
  if (lead < 0x80) return {1, Form::kComplete};
  if (lead < 0xC2 || lead > 0xF4) return {1, Form::kMalformed};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (offset + i == bytes.size()) return {i, Form::kUnfinished};
    const unsigned byte = at(i);
    if (byte < (i == 1 ? low : 0x80) || byte > (i == 1 ? high : 0xBF)) return {i, Form::kMalformed};
  }
  return {length, Form::kComplete};
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  for (size_t offset = 0; offset < text.size();) {
    const Unit unit = next_unit(text, offset);
    if (unit.form != Form::kComplete) return offset;
    offset += unit.length;
  }
  return std::string_view::npos;
}

uint32_t utf8_code_point(std::string_view text, size_t offset) {
  const size_t length = utf8_length(text[offset]);
  const uint8_t lead = byte_of(text[offset]);
  if (length == 1) return lead;
  uint32_t code_point = lead & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i)
    code_point = code_point << 6 | (byte_of(text[offset + i]) & 0x3Fu);
  return code_point;
}

void append_utf8(uint32_t code_point, std::string& out) {
  const auto byte = [&](uint32_t value) { out.push_back(char_of(value)); };
  if (code_point < 0x80) {
    byte(code_point);
  } else if (code_point < 0x800) {
    byte(0xC0 | code_point >> 6);
    byte(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    byte(0xE0 | code_point >> 12);
    byte(0x80 | (code_point >> 6 & 0x3F));
    byte(0x80 | (code_point & 0x3F));
  } else {
    byte(0xF0 | code_point >> 18);
    byte(0x80 | (code_point >> 12 & 0x3F));
    byte(0x80 | (code_point >> 6 & 0x3F));
    byte(0x80 | (code_point & 0x3F));
  }
}

size_t append_lossy_utf8(std::string_view bytes, bool more_follows, std::string& out) {
  size_t offset = 0;
  while (offset < bytes.size()) {
    const Unit unit = next_unit(bytes, offset);
    if (unit.form == Form::kUnfinished && more_follows) break;
    out += unit.form == Form::kComplete ? bytes.substr(offset, unit.length) : kReplacementCharacter;
    offset += unit.length;
  }
  return offset;
}

bool is_white_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_word_character(uint32_t c) {
  // utf8proc does not have the property Alphabetic. Besides letters, marks and letter
  // numbers the property holds these enclosed letters.
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
      (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C ||
      c == 0x200D) {
    return true;
  }
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

}  // namespace orrery::text
