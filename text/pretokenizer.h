// The "pre_tokenizer" of tokenizer.json cuts text into the pieces within which BPE
// merges. Supported are ByteLevel (with or without its own expression), Split (String
// or Regex, with every behavior), Digits, Metaspace, and Sequence of those. Any other
// type is an Error naming the file and the type. Immutable, safe to share between
// threads.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/tokenizer_json.h"
#include "text/tokenizer_pattern.h"

namespace orrery::text {

/// GPT-2's alphabet writes each byte as one printable character, so that any text is a
/// sequence of characters of the vocabulary.
class ByteAlphabet {
 public:
  ByteAlphabet();
  std::string_view of_byte(uint8_t byte) const { return text_[byte]; }
  /// The byte that a code point stands for, or -1.
  int to_byte(uint32_t code_point) const {
    return code_point < bytes_.size() ? bytes_[code_point] : -1;
  }

 private:
  std::array<std::string, 256> text_;
  std::array<int, 324> bytes_{};
};

class PreTokenizer {
 public:
  /// With a null node the pre-tokenizer leaves a text in one piece.
  explicit PreTokenizer(const JsonNode& node);

  /// The pieces of `text`, none of them empty. The text is valid UTF-8 and normalized;
  /// with `at_start`, the input has nothing before it.
  std::vector<std::string> apply(std::string_view text, bool at_start) const;

 private:
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Scheme { kAlways, kFirst, kNever };
  struct Split {
    Pattern pattern;
    Behavior behavior;
    bool invert;
  };
  struct PrependSpace {};  // unless the piece starts with a space
  struct ToBytes {};       // spells the piece in the byte alphabet
  struct Metaspace {
    std::string replacement;
    Scheme scheme;
  };
  using Step = std::variant<Split, PrependSpace, ToBytes, Metaspace>;
  struct Piece {
    std::string text;
    bool at_start;
  };

  void add(const JsonNode& node, int depth);
  void add_metaspace(const JsonNode& node);
  static Behavior behavior_of(const JsonNode& node);
  static void split(const Split& step, const Piece& piece, std::vector<Piece>& out);
  void change(const Step& step, Piece& piece) const;

  std::vector<Step> steps_;
  ByteAlphabet alphabet_;
};

}  // namespace orrery::text
