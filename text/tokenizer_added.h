// The "added_tokens" of tokenizer.json are texts that become one id wherever they
// occur, before any splitting or merging. A token with "normalized": false is searched
// in the raw text, any other in normalized text. The leftmost match wins, and the
// longest of those. single_word, lstrip and rstrip mean the same as in Hugging Face
// tokenizers. Immutable after add(), safe to share.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/span.h"

namespace orrery::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
  bool special = false;
};

/// A part of a text: an added token (id >= 0), or text between them (id < 0).
struct TextSegment {
  size_t begin;
  size_t end;
  int32_t id;
};

/// Finds a set of added tokens in texts.
class AddedTokenFinder {
 public:
  /// Adds a token to be found by `pattern`, which is its content, perhaps normalized.
  void add(std::string_view pattern, const AddedToken& token);
  /// Segments that cover `text` in order, none of them empty. The text is valid UTF-8.
  std::vector<TextSegment> split(std::string_view text) const;

 private:
  struct Node {
    std::map<uint8_t, int64_t> next;  // index into nodes_
    int64_t token = -1;               // index into tokens_
  };
  struct Match {
    size_t end;
    int64_t token;
  };
  Match longest_at(std::string_view text, size_t begin) const;

  Array<Node> nodes_ = Array<Node>(1);
  Array<AddedToken> tokens_;
  std::array<bool, 256> starts_{};  // whether a pattern starts with the byte
};

}  // namespace orrery::text
