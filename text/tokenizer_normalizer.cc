#include "text/tokenizer_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <utility>

#include "core/error.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

std::string utf8proc_form(const std::string& text, int options) {
  utf8proc_uint8_t* result = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), std::ssize(text),
                   &result, static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  if (length < 0)
    fail("text of {} bytes cannot be normalized: {}", text.size(), utf8proc_errmsg(length));
  return std::string(reinterpret_cast<const char*>(result), length);
}

/// Code points whose combining class or decomposition was assigned after Unicode 9.
/// Hugging Face tokenizers normalizes by the tables of Unicode 9. To it, and so to
/// every model trained with it, these are plain characters that nothing is moved
/// across.
constexpr std::array<std::pair<uint32_t, uint32_t>, 46> kNewerThanUnicode9 = {
    {{0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
     {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
     {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785}, {0x10787, 0x107B0},
     {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
     {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
     {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11938, 0x11938}, {0x1193D, 0x1193E},
     {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
     {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
     {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F},
     {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
     {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}}};

bool is_newer_than_unicode9(uint32_t c) {
  const auto after =
      std::upper_bound(kNewerThanUnicode9.begin(), kNewerThanUnicode9.end(), c,
                       [](uint32_t value, const auto& range) { return value < range.first; });
  return after != kNewerThanUnicode9.begin() && c <= std::prev(after)->second;
}

/// utf8proc_form, except that those code points stay as they are.
std::string unicode9_form(const std::string& text, int options) {
  std::string out;
  size_t begin = 0;  // of the text that is not yet normalized
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text[at]);
    if (length > 1 && is_newer_than_unicode9(utf8_code_point(text, at))) {
      if (at > begin) out += utf8proc_form(text.substr(begin, at - begin), options);
      out.append(text, at, length);
      begin = at + length;
    }
    at += length;
  }
  if (begin == 0) return utf8proc_form(text, options);
  if (begin < text.size()) out += utf8proc_form(text.substr(begin), options);
  return out;
}

std::string lowercase(const std::string& text) {
  std::string out;
  for (size_t offset = 0; offset < text.size(); offset += utf8_length(text[offset])) {
    const uint32_t c = utf8_code_point(text, offset);
    if (c == 0x130) {  // the only letter whose lower case is two code points
      out += "i\xCC\x87";
    } else {
      append_utf8(utf8proc_tolower(c), out);
    }
  }
  return out;
}

}  // namespace

Normalizer::Normalizer(const JsonNode& node) { add(node, 0); }

void Normalizer::add(const JsonNode& node, int depth) {
  if (node.is_null()) return;
  const std::string type = node.type();
  if (type == "Sequence") {
    if (depth >= 8) node.fail_here("sequences nested too deep");
    for (const JsonNode& item : node.member("normalizers").items()) add(item, depth + 1);
  } else if (type == "NFC") {
    steps_.emplace_back(Form::kNfc);
  } else if (type == "NFD") {
    steps_.emplace_back(Form::kNfd);
  } else if (type == "NFKC") {
    steps_.emplace_back(Form::kNfkc);
  } else if (type == "NFKD") {
    steps_.emplace_back(Form::kNfkd);
  } else if (type == "Lowercase") {
    steps_.emplace_back(Form::kLowercase);
  } else if (type == "Prepend") {
    steps_.emplace_back(Prepend{node.member("prepend").as_string()});
  } else if (type == "Replace") {
    steps_.emplace_back(
        Replace{Pattern(node.member("pattern")), node.member("content").as_string()});
  } else {
    node.fail_here(fmt::format(
        "normalizer type {} is not supported (supported: NFC, NFD, NFKC, NFKD, Lowercase, "
        "Prepend, Replace, Sequence)",
        type.substr(0, 40)));
  }
}

std::string Normalizer::apply_form(Form form, std::string text) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return is_ascii(c); });
  if (form == Form::kLowercase) return lowercase(text);
  if (ascii) return text;
  switch (form) {
    case Form::kNfc:
      return unicode9_form(text, UTF8PROC_COMPOSE);
    case Form::kNfd:
      return unicode9_form(text, UTF8PROC_DECOMPOSE);
    case Form::kNfkc:
      return unicode9_form(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case Form::kNfkd:
      return unicode9_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    case Form::kLowercase:
      break;
  }
  return text;
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  const size_t limit = growth_limit(text.size());
  for (const Step& step : steps_) {
    if (const auto* form = std::get_if<Form>(&step)) {
      out = apply_form(*form, std::move(out));
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!out.empty()) out.insert(0, prepend->text);
    } else {
      const auto& replace = std::get<Replace>(step);
      out = replace.pattern.replace_all(out, replace.content, limit);
    }
    check_growth(out.size(), limit, "normalizer");
  }
  return out;
}

}  // namespace orrery::text
