// The "decoder" of tokenizer.json turns token strings into text. Supported are
// ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, and Sequence of those. Any
// other type is an Error naming the file and the type. Without a decoder, tokens are
// joined by spaces, as Hugging Face tokenizers does. Immutable, safe to share between
// threads.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/pretokenizer.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_pattern.h"

namespace orrery::text {

class TokenDecoder {
 public:
  explicit TokenDecoder(const JsonNode& node);

  /// The text of a whole sequence, exactly as Hugging Face tokenizers gives it.
  /// Malformed bytes become U+FFFD.
  std::string decode(std::vector<std::string> tokens) const;

  /// The bytes that one token adds to a text; they may end inside a character. With
  /// `is_first`, no token stands before it. Leading characters that a Strip removes
  /// from the whole text are still there: see leading_strip().
  std::string token_bytes(std::string_view token, bool is_first) const;

  struct LeadingStrip {
    std::string character;
    int count = 0;
  };
  /// The characters that are removed from the beginning of a whole text.
  const LeadingStrip& leading_strip() const { return leading_strip_; }

 private:
  struct ByteLevel {};
  struct ByteFallback {};
  struct Fuse {};
  struct Strip {
    std::string character;
    int start;
    int stop;
  };
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct Metaspace {
    std::string replacement;
    bool drops_first;
  };
  using Step = std::variant<ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace>;

  void add(const JsonNode& node, int depth);
  void add_strip(const JsonNode& node);
  void append_bytes(std::string_view token, std::string& bytes) const;
  std::vector<std::string> apply(const Step& step, std::vector<std::string> tokens,
                                 size_t limit) const;

  std::vector<Step> steps_;
  ByteAlphabet alphabet_;
  LeadingStrip leading_strip_;
  bool fused_ = false;
};

}  // namespace orrery::text
