// The order of training prompts, and their tokens. A function of (seed, prompt_index)
// and of which rows can be used, so a data cursor is a number.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/environment.h"
#include "actors/item_check.h"
#include "text/chat_template.h"
#include "text/chat_training.h"
#include "text/tokenizer.h"

namespace orrery::actors {

/// An item of the environment, ready to generate from. Every sample of a group resets
/// its own episode on it.
struct Prompt {
  uint64_t item = 0;
  std::vector<int32_t> tokens;
};

/// What will be asked of a PromptSource: nothing else is checked.
struct PromptUse {
  uint64_t train_prompts = std::numeric_limits<uint64_t>::max();  ///< 0: no training prompt
  bool val = true;
};

/// Immutable and thread-safe.
class PromptSource {
 public:
  /// Everything must outlive the source. All prompts that `use` asks for are rendered
  /// and measured here (of an environment that generates them, the first
  /// kGeneratedSample). One that cannot be used, because it is longer than
  /// data.max_prompt_length, has no token or is refused by the chat template, is a
  /// usage Error naming the item (file:line), its length and the limit; with
  /// data.on_error: skip such items are left out and counted in a warning, and it is an
  /// Error when none is left. Error when data.apply_chat_template is set and the
  /// template is unknown.
  PromptSource(const proto::DataSection& data, const Environment& env,
               const text::Tokenizer& tokenizer, uint64_t seed, const CheckSetup& setup = {},
               const PromptUse& use = {});

  /// Training prompt number `prompt_index` of the run. With a finite split of `size`
  /// items that can be used, epoch e = prompt_index / size is a permutation of them
  /// keyed by (seed, e) when data.shuffle is set, else file order; one epoch follows
  /// the other without a gap. With an unlimited one, the index itself is the item; one
  /// that cannot be used is an Error, or with on_error: skip another is drawn in its
  /// place.
  Prompt train_prompt(uint64_t prompt_index) const;
  uint64_t train_size() const { return train_.size(); }  ///< items that can be used; 0: unlimited

  /// Held-out item `index` < val_size(): the first of those that can be used.
  Prompt val_prompt(uint64_t index) const;
  uint64_t val_size()
      const;  ///< data.val_size bounded by what there is; unlimited: data.val_size, or 500

  /// Tokens of the longest prompt of a split that was checked and can be used; 0: none
  /// was.
  int64_t longest(Split split) const {
    return split == Split::kTrain ? longest_train_ : longest_val_;
  }

  /// Tokens of an episode's prompt: its messages, the last user's inside
  /// data.prompt_template, through the chat template (no BOS added beyond the
  /// template's), or its text through data.prompt_template and the tokenizer (BOS as
  /// the tokenizer says; at least one token always).
  std::vector<int32_t> tokens(const Episode& episode) const;

  /// Tokens that follow a turn of the policy when the environment goes on with
  /// `observation`: its text, or in a chat what the template prints between the
  /// assistant's text and the next one, with the observation as the user's message
  /// (actors/observation.cc). `said_end`: the token that the turn ended with, when that
  /// was one that ends a sequence, which is not repeated. Usage Error when the template
  /// has no such text.
  std::vector<int32_t> observation_tokens(const Episode& episode, const std::string& observation,
                                          std::optional<int32_t> said_end) const;

  /// The same prompt with a teacher's response to it: what the chat template prints for
  /// the answer (text/chat_training.h), or the answer's text and the tokenizer's first
  /// end-of-sequence token.
  text::ChatExample example(const Episode& episode, const std::string& answer) const;
  /// The same of an assistant's message, with a chat template perhaps all the
  /// assistant's of the conversation that it ends. Without a template only its content
  /// counts.
  text::ChatExample example(const Episode& episode, const text::ChatMessage& answer,
                            text::LearnedTurns turns) const;
  bool is_chat() const { return chat_template_.has_value(); }

 private:
  std::vector<text::ChatMessage> messages(const Episode& episode) const;
  static text::ChatOptions chat_options(const Episode& episode);
  bool skips() const { return data_.on_error() == proto::DataSection::SKIP; }
  UsableItems check(Split split, uint64_t wanted, const CheckSetup& setup);
  ItemProblem problem(Split split, uint64_t item, const std::vector<int32_t>& tokens) const;
  /// Of the item itself; Error when it cannot be used.
  Prompt prompt(Split split, uint64_t item) const;
  /// Of an unlimited split.
  Prompt generated(Split split, uint64_t index) const;

  const proto::DataSection& data_;
  const Environment& env_;
  const text::Tokenizer& tokenizer_;
  uint64_t seed_;
  std::optional<text::ChatTemplate> chat_template_;
  UsableItems train_, val_;  // of finite splits
  int64_t longest_train_ = 0, longest_val_ = 0;
};

/// Position `index` of a pseudo-random permutation of [0, size) keyed by (seed, epoch):
/// a Feistel network with cycle walking over Philox, so nothing is stored however large
/// the data set is.
uint64_t permuted_index(uint64_t seed, uint64_t epoch, uint64_t size, uint64_t index);

}  // namespace orrery::actors
