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

/// An item of the environment, ready to generate from. Every sample of a group resets its own episode on it.
struct Prompt {
  uint64_t item = 0;
  std::vector<int32_t> tokens;
};

/// Immutable and thread-safe.
class PromptSource {
 public:
  /// Everything must outlive the source. Error when data.apply_chat_template is set and the template is
  /// unknown.
  PromptSource(const proto::DataSection& data, const Environment& env, const Tokenizer& tokenizer,
               uint64_t seed);

  /// Training prompt number `prompt_index` of the run. With a finite split, epoch e = prompt_index / size is
  /// a permutation keyed by (seed, e) when data.shuffle is set, else file order; with an unlimited one, the
  /// index itself is the item. A prompt longer than max_prompt_length: Error naming the item (file:line), its
  /// length and the limit; with on_error: skip the next item in order is taken instead.
  Prompt train_prompt(uint64_t prompt_index) const;

  /// Held-out item `index` < val_size().
  Prompt val_prompt(uint64_t index) const;
  uint64_t val_size() const;  ///< data.val_size bounded by what there is; unlimited: data.val_size, or 500

  /// Tokens of an episode's prompt: its messages through the chat template (no BOS added beyond the
  /// template's), or its text through data.prompt_template and the tokenizer (BOS as the tokenizer says; at
  /// least one token always).
  std::vector<int32_t> tokens(const Episode& episode) const;

 private:
  const proto::DataSection& data_;
  const Environment& env_;
  const Tokenizer& tokenizer_;
  uint64_t seed_;
  std::optional<ChatTemplate> chat_template_;
};

/// Position `index` of a pseudo-random permutation of [0, size) keyed by (seed, epoch): a Feistel network
/// with cycle walking over Philox, so nothing is stored however large the data set is.
uint64_t permuted_index(uint64_t seed, uint64_t epoch, uint64_t size, uint64_t index);

}  // namespace orrery
