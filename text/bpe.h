// Byte-pair encoding of one piece of text (Sennrich et al. 2016; the ranks' order as
// Hugging Face tokenizers applies it): split the piece into characters, then merge the
// adjacent pair of best rank, leftmost first, until no pair has a rule. A heap over a
// linked list makes that O(n log n), because some models have no pre-tokenizer and a
// piece is the whole text. Immutable after construction and safe to share between
// threads.
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
  /// Takes the vocabulary out of `parsed`; reads its merges and the options of its
  /// "model". Errors name the file: another model type, dropout, affixes, merges of
  /// tokens that are not in the vocabulary.
  BpeModel(TokenizerJson& parsed, const std::string& file);

  /// Appends the ids of `piece` (valid UTF-8, after normalizing and pre-tokenizing) to
  /// `ids`.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  bool byte_fallback() const { return byte_fallback_; }

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left id << 32 | right id
    int32_t rank = 0;
    int32_t id = 0;  // of the merged token
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
  std::vector<Merge> merges_;  // open addressing, a power of two
  std::array<int32_t, 128> ascii_ids_{};
  std::array<int32_t, 256> byte_ids_{};  // of "<0xHH>", or -1
  int32_t unknown_id_ = -1;
  std::string
      missing_unknown_;  // an unk_token that is not in the vocabulary: an error only where it is needed
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace orrery::text
