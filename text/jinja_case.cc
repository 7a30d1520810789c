// Letter case and the predicates of jinja_text.h.
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "core/ascii.h"
#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

utf8proc_category_t category(uint32_t c) { return utf8proc_category(c); }
bool is_upper(uint32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LU || (c >= 0x2160 && c <= 0x216F);
}
bool is_lower(uint32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA ||
         (c >= 0x2170 && c <= 0x217F);
}
bool is_title(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }
bool is_cased(uint32_t c) { return is_upper(c) || is_lower(c) || is_title(c); }
bool is_letter(uint32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_digit(uint32_t c) {
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 ||
         (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
         (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247C);
}
bool is_numeric(uint32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO;
}
bool is_printable(uint32_t c) {
  if (c == ' ') return true;
  const utf8proc_category_t kind = category(c);
  return kind != UTF8PROC_CATEGORY_CN && kind < UTF8PROC_CATEGORY_ZS;
}

enum class Case { kUpper, kLower, kTitle };

/// Characters whose capital is more than one character.
constexpr std::array<std::pair<uint32_t, std::string_view>, 14> kLongCapitals = {
    {{0xDF, "SS"},
     {0x149, "\u02BCN"},
     {0x1F0, "J\u030C"},
     {0x390, "\u0399\u0308\u0301"},
     {0x3B0, "\u03A5\u0308\u0301"},
     {0x587, "\u0535\u0552"},
     {0x1E96, "H\u0331"},
     {0xFB00, "FF"},
     {0xFB01, "FI"},
     {0xFB02, "FL"},
     {0xFB03, "FFI"},
     {0xFB04, "FFL"},
     {0xFB05, "ST"},
     {0xFB06, "ST"}}};

/// Other characters with a long capital. They are not supported.
bool has_other_long_capital(uint32_t c) {
  return (c >= 0x1E97 && c <= 0x1E9A) ||
         (c >= 0x1F50 && c <= 0x1FFC && is_lower(c) &&
          (c == 0x1F50 || c == 0x1F52 || c == 0x1F54 || c == 0x1F56 || c >= 0x1F80)) ||
         (c >= 0xFB13 && c <= 0xFB17);
}

void append_case(uint32_t c, Case wanted, std::string& out) {
  if (wanted == Case::kLower) {
    if (c == 0x130) {
      out += "i\u0307";
    } else {
      append_utf8(utf8proc_tolower(c), out);
    }
    return;
  }
  for (const auto& [small, capital] : kLongCapitals) {
    if (small != c) continue;
    out += capital[0];
    const bool ascii = capital.size() <= 3 && is_ascii(capital[1]);
    out += wanted == Case::kTitle && ascii ? text_lower(capital.substr(1))
                                           : std::string(capital.substr(1));
    return;
  }
  if (has_other_long_capital(c)) fail_unsupported("the capital of U+{:04X} is not supported", c);
  append_utf8(wanted == Case::kUpper ? utf8proc_toupper(c) : utf8proc_totitle(c), out);
}

template <class Visit>
void for_each(std::string_view text, const Visit& visit) {
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at]))
    visit(utf8_code_point(text, at), at);
}

bool is_case_ignorable(uint32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_ME ||
         kind == UTF8PROC_CATEGORY_CF || kind == UTF8PROC_CATEGORY_LM ||
         kind == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' || c == 0xB7 ||
         c == 0x2018 || c == 0x2019;
}

/// Whether the capital sigma at `at` ends a word. There its small letter is another one
/// than inside a word.
bool is_final_sigma(std::string_view text, size_t at) {
  // The limit keeps a hostile text from making the search quadratic.
  constexpr int kMaxIgnored = 100;
  int ignored = 0;
  const auto counts = [&](uint32_t c) {
    if (!is_case_ignorable(c)) return true;
    if (++ignored > kMaxIgnored)
      fail_unsupported("the small letter of a sigma among {} marks is not supported", kMaxIgnored);
    return false;
  };
  bool before = false;
  for (size_t begin = at; begin > 0;) {
    do --begin;
    while (begin > 0 && continues_character(text[begin]));
    if (const uint32_t c = utf8_code_point(text, begin); counts(c)) {
      before = is_cased(c);
      break;
    }
  }
  if (!before) return false;
  for (size_t next = at + 2; next < text.size(); next += utf8_length(text[next])) {
    if (const uint32_t c = utf8_code_point(text, next); counts(c)) return !is_cased(c);
  }
  return true;
}

void append_lower(std::string_view text, uint32_t c, size_t at, std::string& out) {
  if (c == 0x3A3) {
    out += is_final_sigma(text, at) ? "\u03C2" : "\u03C3";
  } else {
    append_case(c, Case::kLower, out);
  }
}

bool all_of(std::string_view text, bool (*is)(uint32_t)) {
  bool all = !text.empty();
  for_each(text, [&](uint32_t c, size_t) { all = all && is(c); });
  return all;
}

bool is_title_text(std::string_view text) {
  bool cased = false, previous = false, good = true;
  for_each(text, [&](uint32_t c, size_t) {
    if (is_upper(c) || is_title(c)) {
      good = good && !previous;
      previous = cased = true;
    } else if (is_lower(c)) {
      good = good && previous;
      previous = cased = true;
    } else {
      previous = false;
    }
  });
  return good && cased;
}

bool is_identifier(std::string_view text) {
  for_each(text, [&](uint32_t c, size_t) {
    if (c >= 0x80) fail_unsupported("isidentifier of text that is not ASCII is not supported");
  });
  return !text.empty() && (text[0] == '_' || is_letter(byte_of(text[0]))) &&
         all_of(text, [](uint32_t c) { return c == '_' || is_letter(c) || is_decimal(c); });
}

}  // namespace

std::string text_upper(std::string_view text) {
  std::string out;
  for_each(text, [&](uint32_t c, size_t) { append_case(c, Case::kUpper, out); });
  return out;
}

std::string text_lower(std::string_view text) {
  std::string out;
  for_each(text, [&](uint32_t c, size_t at) { append_lower(text, c, at, out); });
  return out;
}

std::string text_casefold(std::string_view text) {
  utf8proc_uint8_t* folded = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 std::ssize(text), &folded, UTF8PROC_CASEFOLD);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(folded, &std::free);
  if (size < 0) fail("casefold: {}", utf8proc_errmsg(size));
  return std::string(reinterpret_cast<const char*>(folded), size);
}

std::string text_swapcase(std::string_view text) {
  std::string out;
  for_each(text, [&](uint32_t c, size_t at) {
    if (is_upper(c)) {
      append_lower(text, c, at, out);
    } else if (is_lower(c)) {
      append_case(c, Case::kUpper, out);
    } else {
      append_utf8(c, out);
    }
  });
  return out;
}

std::string text_capitalize(std::string_view text) {
  std::string out;
  for_each(text, [&](uint32_t c, size_t at) {
    if (at == 0) {
      append_case(c, Case::kTitle, out);
    } else {
      append_lower(text, c, at, out);
    }
  });
  return out;
}

std::string text_title(std::string_view text) {
  std::string out;
  bool previous = false;
  for_each(text, [&](uint32_t c, size_t at) {
    if (previous) {
      append_lower(text, c, at, out);
    } else {
      append_case(c, Case::kTitle, out);
    }
    previous = is_cased(c);
  });
  return out;
}

std::string text_title_words(std::string_view text) {
  std::string out;
  size_t begin = 0;
  bool in_word = false;
  const auto end_word = [&](size_t end) {
    if (!in_word) return;
    const std::string_view word = text.substr(begin, end - begin);
    const size_t first = utf8_length(word[0]);
    out += text_upper(word.substr(0, first)) + text_lower(word.substr(first));
  };
  for_each(text, [&](uint32_t c, size_t at) {
    const bool separates =
        is_python_space(c) ||
        (c < 0x80 && std::string_view("-({[<").find(char_of(c)) != std::string_view::npos);
    if (separates) {
      end_word(at);
      in_word = false;
      append_utf8(c, out);
    } else if (!in_word) {
      in_word = true;
      begin = at;
    }
  });
  end_word(text.size());
  return out;
}

std::optional<bool> text_predicate(std::string_view name, std::string_view text) {
  if (name == "isalpha") return all_of(text, is_letter);
  if (name == "isdecimal") return all_of(text, is_decimal);
  if (name == "isdigit") return all_of(text, is_digit);
  if (name == "isnumeric") return all_of(text, is_numeric);
  if (name == "isalnum")
    return all_of(text, [](uint32_t c) { return is_letter(c) || is_numeric(c); });
  if (name == "isspace") return all_of(text, is_python_space);
  if (name == "isprintable") return text.empty() || all_of(text, is_printable);
  if (name == "isascii") return std::all_of(text.begin(), text.end(), is_ascii);
  if (name == "istitle") return is_title_text(text);
  if (name == "isidentifier") return is_identifier(text);
  if (name == "islower" || name == "isupper") {
    bool cased = false, good = true;
    const bool lower = name == "islower";
    for_each(text, [&](uint32_t c, size_t) {
      if (!is_cased(c)) return;
      cased = true;
      good = good && (lower ? is_lower(c) : is_upper(c));
    });
    return cased && good;
  }
  return std::nullopt;
}

std::string text_ascii_digits(std::string_view text) {
  std::string out;
  for_each(text, [&](uint32_t c, size_t) {
    if (c < 0x80 || !is_decimal(c)) return append_utf8(c, out);
    // Unicode has the ten digits of a script in a row; the digits of some scripts
    // follow those of another without a gap.
    uint32_t before = 0;
    while (before < 60 && is_decimal(c - before - 1)) ++before;
    out += to_digit(before % 10);
  });
  return out;
}

std::string text_repr(std::string_view text) {
  const bool single =
      text.find('\'') == std::string_view::npos || text.find('"') != std::string_view::npos;
  const char quote = single ? '\'' : '"';
  std::string out(1, quote);
  for_each(text, [&](uint32_t c, size_t) {
    if (c == '\\' || c == byte_of(quote)) {
      out += {'\\', char_of(c)};
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_utf8(c, out);
    } else {
      out += c < 0x100     ? fmt::format("\\x{:02x}", c)
             : c < 0x10000 ? fmt::format("\\u{:04x}", c)
                           : fmt::format("\\U{:08x}", c);
    }
  });
  check_text_size(out.size());
  return out + quote;
}

}  // namespace orrery::text::jinja
