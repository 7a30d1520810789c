#include "actors/envs/plain_text.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/ascii.h"
#include "text/tokenizer_utf8.h"

namespace orrery::actors {
namespace {

constexpr uint32_t kRootSign = 0x221A;

struct Spelling {
  uint32_t code_point;
  const char* plain;
};

// Sorted by code point.
constexpr Spelling kSpellings[] = {
    {0x00A0, "\\,"},
    {0x00A2, "\\cents "},
    {0x00A3, "\\pounds "},
    {0x00A5, "\\yen "},
    {0x00AD, ""},
    {0x00B0, "^\\circ "},
    {0x00B1, "\\pm "},
    {0x00B7, "\\cdot "},
    {0x00BC, "\\frac{1}{4}"},
    {0x00BD, "\\frac{1}{2}"},
    {0x00BE, "\\frac{3}{4}"},
    {0x00D7, "\\times "},
    {0x00F7, "\\div "},
    {0x02BC, "'"},
    {0x03B1, "\\alpha "},
    {0x03B2, "\\beta "},
    {0x03B3, "\\gamma "},
    {0x03B4, "\\delta "},
    {0x03B8, "\\theta "},
    {0x03BB, "\\lambda "},
    {0x03BC, "\\mu "},
    {0x03C0, "\\pi "},
    {0x03C6, "\\phi "},
    {0x03C9, "\\omega "},
    {0x066B, "."},
    {0x066C, ","},
    {0x200B, ""},
    {0x200C, ""},
    {0x200D, ""},
    {0x200E, ""},
    {0x200F, ""},
    {0x2018, "'"},
    {0x2019, "'"},
    {0x201C, "\""},
    {0x201D, "\""},
    {0x2032, "'"},
    {0x2044, "/"},
    {0x2060, ""},
    {0x2061, ""},
    {0x2062, ""},
    {0x2063, ""},
    {0x2064, ""},
    {0x20A9, "\\won "},
    {0x20AC, "\\euro "},
    {0x20B9, "\\rupee "},
    {0x2150, "\\frac{1}{7}"},
    {0x2151, "\\frac{1}{9}"},
    {0x2152, "\\frac{1}{10}"},
    {0x2153, "\\frac{1}{3}"},
    {0x2154, "\\frac{2}{3}"},
    {0x2155, "\\frac{1}{5}"},
    {0x2156, "\\frac{2}{5}"},
    {0x2157, "\\frac{3}{5}"},
    {0x2158, "\\frac{4}{5}"},
    {0x2159, "\\frac{1}{6}"},
    {0x215A, "\\frac{5}{6}"},
    {0x215B, "\\frac{1}{8}"},
    {0x215C, "\\frac{3}{8}"},
    {0x215D, "\\frac{5}{8}"},
    {0x215E, "\\frac{7}{8}"},
    {0x2205, "\\emptyset "},
    {0x2208, "\\in "},
    {0x2212, "-"},
    {0x2213, "\\mp "},
    {0x2215, "/"},
    {0x2219, "\\cdot "},
    {0x221A, "\\sqrt "},
    {0x221E, "\\infty "},
    {0x2229, "\\cap "},
    {0x222A, "\\cup "},
    {0x2248, "\\approx "},
    {0x2260, "\\neq "},
    {0x2264, "\\leq "},
    {0x2265, "\\geq "},
    {0x22C5, "\\cdot "},
    {0x3000, " "},
    {0x3001, ","},
    {0x3002, "."},
    {0xFE58, "-"},
    {0xFE63, "-"},
    {0xFEFF, ""},
};
static_assert(std::is_sorted(std::begin(kSpellings), std::end(kSpellings),
                             [](const Spelling& a, const Spelling& b) {
                               return a.code_point < b.code_point;
                             }));

/// The ASCII digit of one of another script; NUL for anything else.
char digit_of(uint32_t c) {
  constexpr uint32_t kZeros[] = {0x0660, 0x06F0, 0x0966, 0x09E6, 0xFF10};
  for (const uint32_t zero : kZeros) {
    if (c >= zero && c < zero + 10) return to_digit(c - zero);
  }
  // Bold, double-struck, and the like.
  if (c >= 0x1D7CE && c <= 0x1D7FF) return to_digit((c - 0x1D7CE) % 10);
  return '\0';
}

/// What a raised or lowered character is on the line; NUL for anything else.
char raised(uint32_t c) {
  if (c == 0x00B9) return '1';
  if (c == 0x00B2 || c == 0x00B3) return to_digit(c - 0x00B0);
  if (c == 0x2070 || (c >= 0x2074 && c <= 0x2079)) return to_digit(c - 0x2070);
  return c == 0x207B ? '-' : (c == 0x207A ? '+' : '\0');
}
char lowered(uint32_t c) {
  if (c >= 0x2080 && c <= 0x2089) return to_digit(c - 0x2080);
  return c == 0x208B ? '-' : '\0';
}

/// The bytes of the well-formed character at `at`; 0 when there is none.
size_t well_formed(std::string_view text, size_t at) {
  const size_t length = text::utf8_length(text[at]);
  if (length == 0 || at + length > text.size()) return 0;
  return text::find_invalid_utf8(text.substr(at, length)) >= length ? length : 0;
}

void append_plain(uint32_t c, std::string_view bytes, std::string& out) {
  const auto* spelling =
      std::lower_bound(std::begin(kSpellings), std::end(kSpellings), c,
                       [](const Spelling& s, uint32_t value) { return s.code_point < value; });
  if (const char digit = digit_of(c); digit != '\0') {
    out += digit;
  } else if (spelling != std::end(kSpellings) && spelling->code_point == c) {
    out += spelling->plain;
  } else if (c >= 0xFF01 && c <= 0xFF5E) {  // full-width ASCII
    out += static_cast<char>(c - 0xFEE0);
  } else if (c >= 0x2010 && c <= 0x2015) {  // hyphens and dashes
    out += '-';
  } else if ((c >= 0x2004 && c <= 0x200A) || c == 0x202F || c == 0x205F) {  // narrow spaces
    out += "\\,";
  } else if (c >= 0x2000 && c <= 0x2003) {
    out += ' ';
  } else {
    out += bytes;
  }
}

}  // namespace

std::string plain_text(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  char script = '\0';  // '^' or '_' while a run of raised or lowered characters lasts
  for (size_t at = 0; at < text.size();) {
    const bool ascii = is_ascii(text[at]);
    const size_t length = ascii ? 1 : well_formed(text, at);
    const uint32_t c = ascii || length == 0 ? 0 : text::utf8_code_point(text, at);
    const char up = raised(c), down = lowered(c);
    const char wanted = up != '\0' ? '^' : (down != '\0' ? '_' : '\0');
    if (script != wanted) {
      if (script != '\0') out += '}';
      if (wanted != '\0') out.append(1, wanted) += '{';
      script = wanted;
    }
    const std::string_view bytes = text.substr(at, std::max<size_t>(length, 1));
    if (wanted != '\0') {
      out += up != '\0' ? up : down;
    } else if (c == 0) {
      out += bytes;
    } else {
      append_plain(c, bytes, out);
      // A root sign covers all digits behind it, unlike \sqrt.
      size_t end = at + bytes.size();
      while (c == kRootSign && end < text.size() && is_digit(text[end])) ++end;
      if (end > at + bytes.size()) {
        out.append(1, '{').append(text.substr(at + bytes.size(), end - at - bytes.size())) += '}';
        at = end;
        continue;
      }
    }
    at += bytes.size();
  }
  if (script != '\0') out += '}';
  return out;
}

}  // namespace orrery::actors
