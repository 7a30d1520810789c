#include "text/pretokenizer.h"

#include "core/error.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

/// GPT-2's expression. It matches contractions; words, numbers and other runs with at
/// most one space before them; and runs of spaces, whose last one belongs to the word
/// after it.
constexpr std::string_view kByteLevelExpression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Stretch {
  size_t begin;
  size_t end;
  bool is_match;
};

}  // namespace

ByteAlphabet::ByteAlphabet() {
  // The printable bytes of Latin-1 stand for themselves. The code points from U+0100 on
  // stand for the other 68, in order.
  bytes_.fill(-1);
  uint32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    uint32_t code_point = byte;
    if (!printable) code_point = next++;
    append_utf8(code_point, text_[byte]);
    bytes_[code_point] = byte;
  }
}

PreTokenizer::PreTokenizer(const JsonNode& node) { add(node, 0); }

void PreTokenizer::add(const JsonNode& node, int depth) {
  if (node.is_null()) return;
  const std::string type = node.type();
  if (type == "Sequence") {
    if (depth >= 8) node.fail_here("sequences nested too deep");
    for (const JsonNode& item : node.member("pretokenizers").items()) add(item, depth + 1);
  } else if (type == "ByteLevel") {
    if (node.bool_or("add_prefix_space", true)) steps_.emplace_back(PrependSpace{});
    if (node.bool_or("use_regex", true)) {
      steps_.emplace_back(
          Split{Pattern::regex(kByteLevelExpression, node), Behavior::kIsolated, false});
    }
    steps_.emplace_back(ToBytes{});
  } else if (type == "Split") {
    steps_.emplace_back(Split{Pattern(node.member("pattern")), behavior_of(node.member("behavior")),
                              node.bool_or("invert", false)});
  } else if (type == "Digits") {
    const bool individual = node.bool_or("individual_digits", false);
    steps_.emplace_back(Split{Pattern::regex("\\p{N}", node),
                              individual ? Behavior::kIsolated : Behavior::kContiguous, false});
  } else if (type == "Metaspace") {
    add_metaspace(node);
  } else {
    node.fail_here(fmt::format(
        "pre-tokenizer type {} is not supported (supported: ByteLevel, Split, Digits, Metaspace, "
        "Sequence)",
        type.substr(0, 40)));
  }
}

void PreTokenizer::add_metaspace(const JsonNode& node) {
  Metaspace step{node.string_or("replacement", "\xE2\x96\x81"), Scheme::kAlways};
  if (step.replacement.empty() || utf8_length(step.replacement[0]) != step.replacement.size()) {
    node.member("replacement").fail_here("must be one character");
  }
  const std::string scheme = node.string_or("prepend_scheme", "");
  if (scheme == "first") {
    step.scheme = Scheme::kFirst;
  } else if (scheme == "never" || (scheme.empty() && !node.bool_or("add_prefix_space", true))) {
    step.scheme = Scheme::kNever;
  } else if (!scheme.empty() && scheme != "always") {
    node.member("prepend_scheme")
        .fail_here("\"" + scheme.substr(0, 40) + "\" is none of always, first, never");
  }
  steps_.emplace_back(step);
  if (node.bool_or("split", true)) {
    steps_.emplace_back(
        Split{Pattern::literal(step.replacement), Behavior::kMergedWithNext, false});
  }
}

PreTokenizer::Behavior PreTokenizer::behavior_of(const JsonNode& node) {
  const std::string& name = node.as_string();
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  node.fail_here("\"" + name.substr(0, 40) +
                 "\" is none of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

void PreTokenizer::split(const Split& step, const Piece& piece, std::vector<Piece>& out) {
  // The matches and the text between them, in order; together they cover the piece.
  std::vector<Stretch> spans;
  size_t done = 0;
  step.pattern.for_each_match(piece.text, [&](size_t begin, size_t end) {
    if (begin > done) spans.push_back({done, begin, step.invert});
    spans.push_back({begin, end, !step.invert});
    done = end;
  });
  if (done < piece.text.size()) spans.push_back({done, piece.text.size(), step.invert});

  std::vector<Stretch> joined;
  for (size_t i = 0; i < spans.size(); ++i) {
    const Stretch& span = spans[i];
    bool join = false;  // with the span before
    switch (step.behavior) {
      case Behavior::kRemoved:
        if (span.is_match) continue;
        break;
      case Behavior::kIsolated:
        break;
      // Of several matches in a row, only the one next to the other text joins it.
      case Behavior::kMergedWithPrevious:
        join = i > 0 && span.is_match && !spans[i - 1].is_match;
        break;
      case Behavior::kMergedWithNext:
        join = i > 0 && !span.is_match && spans[i - 1].is_match;
        break;
      case Behavior::kContiguous:
        join = i > 0 && span.is_match == spans[i - 1].is_match;
        break;
    }
    if (join) {
      joined.back().end = span.end;
    } else {
      joined.push_back(span);
    }
  }
  for (const Stretch& span : joined) {
    out.push_back(
        {piece.text.substr(span.begin, span.end - span.begin), piece.at_start && span.begin == 0});
  }
}

void PreTokenizer::change(const Step& step, Piece& piece) const {
  if (std::holds_alternative<PrependSpace>(step)) {
    if (piece.text[0] != ' ') piece.text.insert(0, 1, ' ');
  } else if (std::holds_alternative<ToBytes>(step)) {
    std::string bytes;
    bytes.reserve(piece.text.size() + piece.text.size() / 4);
    for (const char c : piece.text) bytes += alphabet_.of_byte(byte_of(c));
    piece.text = std::move(bytes);
  } else {
    const auto& metaspace = std::get<Metaspace>(step);
    std::string text;
    for (const char c : piece.text) c == ' ' ? text += metaspace.replacement : text += c;
    const bool wanted = metaspace.scheme == Scheme::kAlways ||
                        (metaspace.scheme == Scheme::kFirst && piece.at_start);
    if (wanted && !text.starts_with(metaspace.replacement)) text.insert(0, metaspace.replacement);
    piece.text = std::move(text);
  }
}

std::vector<std::string> PreTokenizer::apply(std::string_view text, bool at_start) const {
  std::vector<Piece> pieces;
  if (!text.empty()) pieces.push_back({std::string(text), at_start});
  const size_t limit = growth_limit(text.size());
  for (const Step& step : steps_) {
    if (const auto* splitter = std::get_if<Split>(&step)) {
      std::vector<Piece> next;
      next.reserve(pieces.size() * 2);
      for (const Piece& piece : pieces) split(*splitter, piece, next);
      pieces = std::move(next);
    } else {
      size_t made = 0;
      for (Piece& piece : pieces) {
        change(step, piece);
        made += piece.text.size();
        check_growth(made, limit, "pre-tokenizer");
      }
    }
  }
  std::vector<std::string> out;
  out.reserve(pieces.size());
  for (Piece& piece : pieces) out.push_back(std::move(piece.text));
  return out;
}

}  // namespace orrery::text
