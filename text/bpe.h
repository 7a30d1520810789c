// Byte-pair encoding of one piece of text (Sennrich et al. 2016; ranks are applied in
// the order of Hugging Face tokenizers): split the piece into characters, then merge
// the adjacent pair with the best rank, the leftmost first, until no pair has a rule. A
// heap over a linked list makes that O(n log n), because a model without a
// pre-tokenizer has the whole text as one piece. Immutable after construction and safe
// to share between threads.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/span.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_vocabulary.h"

namespace orrery::text {

class BpeModel {
 public:
  /// Moves the vocabulary out of `parsed`, and reads its merges and the options of its
  /// "model". Throws Error naming the file for another model type, for dropout, for
  /// affixes, and for merges of tokens that are not in the vocabulary.
  BpeModel(TokenizerJson& parsed, const std::string& file);

  /// Appends the ids of `piece` to `ids`. The piece is valid UTF-8, already normalized
  /// and pre-tokenized.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  bool byte_fallback() const { return byte_fallback_; }

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left id << 32 | right id
    int32_t rank = 0;
    int32_t id = 0;  // the merged token
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  static uint64_t pair_of(int32_t left, int32_t right) {
    const uint32_t high = left, low = right;
    return uint64_t{high} << 32 | low;
  }
  size_t slot_of(uint64_t pair) const;
  const Merge* find_merge(int32_t left, int32_t right) const;
  void add_merges(const TokenizerJson& parsed, const std::string& file);
  void append_symbols(std::string_view piece, Array<int32_t>& symbols) const;

  Vocabulary vocabulary_;
  std::vector<Merge> merges_;  // a hash table with open addressing; a power of two long
  std::array<int32_t, 128> ascii_ids_{};
  std::array<int32_t, 256> byte_ids_{};  // the ids of "<0xHH>", or -1
  int32_t unknown_id_ = -1;
  // The error about an unk_token that is not in the vocabulary. It is thrown only where
  // a text needs the token.
  std::string missing_unknown_;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace orrery::text
