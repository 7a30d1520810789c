#include "text/tokenizer_decoder.h"

#include <charconv>

#include "core/error.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

/// The byte of a token "<0xHH>", or -1.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const char* end = token.data() + 5;
  uint8_t byte = 0;
  return std::from_chars(token.data() + 3, end, byte, 16).ptr == end ? byte : -1;
}

/// Joins every run of byte tokens to one text. A run that is not UTF-8 gives one U+FFFD
/// per byte.
std::vector<std::string> join_byte_tokens(std::vector<std::string> tokens) {
  std::vector<std::string> out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (find_invalid_utf8(run) == std::string::npos) {
      out.push_back(run);
    } else {
      out.insert(out.end(), run.size(), std::string(kReplacementCharacter));
    }
    run.clear();
  };
  for (std::string& token : tokens) {
    const int byte = fallback_byte(token);
    if (byte >= 0) {
      run.push_back(char_of(byte));
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  return out;
}

std::string strip(std::string_view text, std::string_view character, int start, int stop) {
  for (; start > 0 && text.starts_with(character); --start) text.remove_prefix(character.size());
  for (; stop > 0 && text.ends_with(character); --stop) text.remove_suffix(character.size());
  return std::string(text);
}

std::string metaspace(std::string_view token, std::string_view replacement, std::string_view by) {
  std::string out;
  for (size_t at = 0; at < token.size();) {
    if (token.substr(at).starts_with(replacement)) {
      out += by;
      at += replacement.size();
    } else {
      out.push_back(token[at++]);
    }
  }
  return out;
}

std::string one_character(const JsonNode& node, const std::string& text) {
  if (text.empty() || utf8_length(text[0]) != text.size()) node.fail_here("must be one character");
  return text;
}

int strip_count(const JsonNode& node) {
  const double count = node.is_null() ? 0 : node.as_number();
  if (!(count >= 0 && count <= 1000)) node.fail_here("must be a count from 0 to 1000");
  return static_cast<int>(count);
}

}  // namespace

TokenDecoder::TokenDecoder(const JsonNode& node) { add(node, 0); }

void TokenDecoder::add(const JsonNode& node, int depth) {
  if (node.is_null()) return;
  const std::string type = node.type();
  if (type == "Sequence") {
    if (depth >= 8) node.fail_here("sequences nested too deep");
    for (const JsonNode& item : node.member("decoders").items()) add(item, depth + 1);
  } else if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
    fused_ = true;
  } else if (type == "ByteFallback") {
    steps_.emplace_back(ByteFallback{});
  } else if (type == "Fuse") {
    steps_.emplace_back(Fuse{});
    fused_ = true;
  } else if (type == "Strip") {
    add_strip(node);
  } else if (type == "Replace") {
    steps_.emplace_back(
        Replace{Pattern(node.member("pattern")), node.member("content").as_string()});
  } else if (type == "Metaspace") {
    const std::string replacement =
        one_character(node.member("replacement"), node.string_or("replacement", "\xE2\x96\x81"));
    const std::string scheme = node.string_or("prepend_scheme", "");
    const bool never =
        scheme == "never" || (scheme.empty() && !node.bool_or("add_prefix_space", true));
    steps_.emplace_back(Metaspace{replacement, !never});
  } else {
    node.fail_here(fmt::format(
        "decoder type {} is not supported (supported: ByteLevel, ByteFallback, Fuse, Strip, "
        "Replace, Metaspace, Sequence)",
        type.substr(0, 40)));
  }
}

void TokenDecoder::add_strip(const JsonNode& node) {
  const JsonNode content = node.member("content");
  const Strip step{one_character(content, content.as_string()), strip_count(node.member("start")),
                   strip_count(node.member("stop"))};
  if (fused_ && leading_strip_.count == 0) leading_strip_ = {step.character, step.start};
  steps_.emplace_back(step);
}

void TokenDecoder::append_bytes(std::string_view token, std::string& bytes) const {
  const size_t before = bytes.size();
  for (size_t at = 0; at < token.size(); at += utf8_length(token[at])) {
    const int byte = alphabet_.to_byte(utf8_code_point(token, at));
    if (byte < 0) {
      // The character is not in the alphabet: this is an added token with its own text.
      bytes.resize(before);
      bytes += token;
      return;
    }
    bytes.push_back(char_of(byte));
  }
}

std::vector<std::string> TokenDecoder::apply(const Step& step, std::vector<std::string> tokens,
                                             size_t limit) const {
  if (std::holds_alternative<ByteLevel>(step)) {
    std::string bytes, text;
    for (const std::string& token : tokens) append_bytes(token, bytes);
    append_lossy_utf8(bytes, false, text);
    return {text};
  }
  if (std::holds_alternative<ByteFallback>(step)) return join_byte_tokens(std::move(tokens));
  if (std::holds_alternative<Fuse>(step)) {
    std::string text;
    for (const std::string& token : tokens) text += token;
    return {text};
  }
  size_t made = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (const auto* stripper = std::get_if<Strip>(&step)) {
      tokens[i] = strip(tokens[i], stripper->character, stripper->start, stripper->stop);
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      tokens[i] = replace->pattern.replace_all(tokens[i], replace->content, limit);
    } else {
      const auto& space = std::get<Metaspace>(step);
      tokens[i] = metaspace(tokens[i], space.replacement, i == 0 && space.drops_first ? "" : " ");
    }
    made += tokens[i].size();
    check_growth(made, limit, "decoder");
  }
  return tokens;
}

std::string TokenDecoder::decode(std::vector<std::string> tokens) const {
  std::string text;
  if (steps_.empty()) {
    for (size_t i = 0; i < tokens.size(); ++i) text += i == 0 ? tokens[i] : " " + tokens[i];
    return text;
  }
  size_t bytes = 0;
  for (const std::string& token : tokens) bytes += token.size();
  for (const Step& step : steps_) tokens = apply(step, std::move(tokens), growth_limit(bytes));
  for (const std::string& token : tokens) text += token;
  return text;
}

std::string TokenDecoder::token_bytes(std::string_view token, bool is_first) const {
  std::string text(token);
  if (steps_.empty()) return is_first ? text : " " + text;
  bool fused = false;
  for (const Step& step : steps_) {
    if (std::holds_alternative<ByteLevel>(step)) {
      std::string bytes;
      append_bytes(text, bytes);
      text = std::move(bytes);
      fused = true;
    } else if (std::holds_alternative<ByteFallback>(step)) {
      if (const int byte = fallback_byte(text); byte >= 0) return {char_of(byte)};
    } else if (std::holds_alternative<Fuse>(step)) {
      fused = true;
    } else if (const auto* stripper = std::get_if<Strip>(&step)) {
      if (!fused) text = strip(text, stripper->character, stripper->start, stripper->stop);
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      if (find_invalid_utf8(text) == std::string::npos)
        text = replace->pattern.replace_all(text, replace->content, growth_limit(token.size()));
    } else {
      const auto& space = std::get<Metaspace>(step);
      text = metaspace(text, space.replacement, is_first && space.drops_first ? "" : " ");
    }
  }
  return text;
}

}  // namespace orrery::text
