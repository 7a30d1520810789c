// The order of training prompts, and their tokens. A function of (seed, prompt_index) alone, so a data cursor
// is a number.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/environment.h"
#include "models/chat_template.h"
#include "models/tokenizer.h"

namespace orrery {

/// One prompt ready to generate from.
struct Prompt {
  uint64_t prompt_index = 0;
  std::vector<int32_t> tokens;
  std::unique_ptr<Episode> episode;  ///< one episode; samples of a group each reset their own
};

class PromptSource {
 public:
  PromptSource(const proto::DataSection& data, const Environment& env, const Tokenizer& tokenizer,
               uint64_t seed);

  /// Item of the environment that training prompt `prompt_index` uses: with a finite split, epoch e =
  /// prompt_index / size is a permutation keyed by (seed, e) when shuffled, in order otherwise; with an
  /// unlimited one, the index itself.
  uint64_t item(uint64_t prompt_index) const;

  /// Tokens of an item's prompt: chat template or prompt_template, then the tokenizer (BOS as the tokenizer
  /// says; a chat template's text gets none added). Error naming the item when longer than max_prompt_length.
  std::vector<int32_t> tokens(const Episode& episode) const;

  Prompt train_prompt(uint64_t prompt_index) const;
  Prompt val_prompt(uint64_t index) const;
  /// Held-out items to use: data.val_size bounded by what there is.
  uint64_t val_size() const;

 private:
  const proto::DataSection& data_;
  const Environment& env_;
  const Tokenizer& tokenizer_;
  uint64_t seed_;
};

/// Position `index` of a pseudo-random permutation of [0, size) keyed by (seed, epoch): a Feistel network
/// with cycle walking over Philox, so nothing is stored however large the data set is.
uint64_t permuted_index(uint64_t seed, uint64_t epoch, uint64_t size, uint64_t index);

}  // namespace orrery
