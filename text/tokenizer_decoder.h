// The "decoder" of tokenizer.json: how token strings become text. ByteLevel,
// ByteFallback, Fuse, Strip, Replace, Metaspace, and Sequence of those; any other type
// is an Error naming the file and the type; none at all joins tokens with spaces, as
// Hugging Face tokenizers does. Immutable, safe to share between threads.
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

  /// The text of whole sequences: exactly Hugging Face's. Bytes that are no UTF-8
  /// become U+FFFD.
  std::string decode(std::vector<std::string> tokens) const;

  /// The bytes one token adds to a text, UTF-8 or a part of it. `is_first`: no token
  /// stands before it. Leading characters that a Strip takes from the whole text are
  /// still there: see leading_strip().
  std::string token_bytes(std::string_view token, bool is_first) const;

  struct LeadingStrip {
    std::string character;
    int count = 0;
  };
  /// What is taken from the beginning of a whole text.
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
