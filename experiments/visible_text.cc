#include "experiments/visible_text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "core/ascii.h"
#include "text/tokenizer_utf8.h"

namespace orrery::experiments {
namespace {

constexpr uint32_t kNonJoiner = 0x200C, kJoiner = 0x200D;  // parts of words and of emoji

/// Whether a character moves the cursor, turns the writing direction, or leaves no
/// trace.
bool is_hidden(uint32_t code_point) {
  if (code_point == kNonJoiner || code_point == kJoiner) return false;
  switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return true;
    default:
      return false;
  }
}

void append_visible(uint32_t code_point, std::string_view bytes, std::string& out) {
  if (!is_hidden(code_point)) {
    out += bytes;
  } else if (code_point == '\r') {
    out += "\\r";
  } else if (code_point < 0x80) {
    out += fmt::format("\\x{:02x}", code_point);
  } else {
    out += code_point < 0x10000 ? fmt::format("\\u{:04x}", code_point)
                                : fmt::format("\\U{:08x}", code_point);
  }
}

/// Appends text that is valid UTF-8.
void append_visible(std::string_view text, size_t indent, std::string& out) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = text::utf8_length(text[at]);
    if (text[at] == '\n') {
      out += '\n';
      out.append(indent, ' ');
    } else if (text[at] == '\t') {
      out += '\t';
    } else {
      append_visible(text::utf8_code_point(text, at), text.substr(at, length), out);
    }
    at += length;
  }
}

}  // namespace

std::string visible_text(std::string_view text, size_t indent) {
  std::string out;
  while (!text.empty()) {
    const size_t good = std::min(text::find_invalid_utf8(text), text.size());
    append_visible(text.substr(0, good), indent, out);
    text.remove_prefix(good);
    if (text.empty()) break;
    out += fmt::format("\\x{:02x}", byte_of(text.front()));
    text.remove_prefix(1);
  }
  return out;
}

}  // namespace orrery::experiments
