// The order of prompts, and their tokens. Both are functions of (seed, prompt_index)
// and of which rows can be used, so a data cursor is one number.
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

/// What a PromptSource will be asked for. It checks nothing else.
struct PromptUse {
  /// How many training prompts; 0 when none is asked for.
  uint64_t train_prompts = std::numeric_limits<uint64_t>::max();
  bool val = true;  ///< whether held-out prompts are asked for
};

/// Immutable and thread-safe.
class PromptSource {
 public:
  /// Renders and measures all prompts that `use` asks for (the first
  /// kGeneratedItemsChecked of an environment that generates them). `data`, `env` and
  /// `tokenizer` must outlive the source.
  ///
  /// A prompt cannot be used when it is longer than data.max_prompt_length, has no
  /// token, or is refused by the chat template. It is then a usage Error that names the
  /// item (file:line), its length and the limit; with data.on_error: skip such items
  /// are left out and counted in a warning, and it is an Error when none is left. It is
  /// also an Error when data.apply_chat_template is set and the model has no chat
  /// template.
  PromptSource(const proto::DataSection& data, const Environment& env,
               const text::Tokenizer& tokenizer, uint64_t seed, const CheckSetup& setup = {},
               const PromptUse& use = {});

  /// Returns training prompt number `prompt_index` of the run. In a finite split of
  /// `size` usable items, epoch e = prompt_index / size takes them in file order, or
  /// with data.shuffle in a permutation keyed by (seed, e); one epoch follows the other
  /// without a gap. In an unlimited split the index itself is the item. Such an item
  /// that cannot be used is an Error, or with on_error: skip another is drawn in its
  /// place.
  Prompt train_prompt(uint64_t prompt_index) const;
  /// The number of usable training items; 0 when the split is unlimited.
  uint64_t train_size() const { return train_.size(); }

  /// Returns the usable held-out item at `index`, in order. REQUIRES: index <
  /// val_size().
  Prompt val_prompt(uint64_t index) const;
  /// The number of held-out prompts: data.val_size, or fewer if the split has fewer
  /// usable items. An unlimited split has data.val_size of them, or 500.
  uint64_t val_size() const;

  /// The tokens of the longest usable prompt that was checked in a split; 0 when none
  /// was.
  int64_t longest(Split split) const {
    return split == Split::kTrain ? longest_train_ : longest_val_;
  }

  /// Returns the tokens of an episode's prompt. In a chat they are its messages, with
  /// data.prompt_template around the last user message, through the chat template; no
  /// BOS is added beyond the template's. Otherwise they are its text, through
  /// data.prompt_template and the tokenizer, which decides about BOS; there is always
  /// at least one token if the tokenizer has a BOS.
  std::vector<int32_t> tokens(const Episode& episode) const;

  /// Returns the tokens that follow a turn of the policy when the environment answers
  /// it with `observation`. Outside a chat these are the observation's own. In a chat
  /// they are what the template prints between this assistant's text and the next one,
  /// with the observation as the user's message (actors/observation.cc). `end_token` is
  /// the token that ended the turn, if that was an end-of-sequence token; it is not
  /// repeated. Throws a usage Error when the template prints no such text.
  std::vector<int32_t> observation_tokens(const Episode& episode, const std::string& observation,
                                          std::optional<int32_t> end_token) const;

  /// Returns the tokens of the prompt and of a teacher's answer to it. The answer's are
  /// what the chat template prints for it (text/chat_training.h), or its text and the
  /// tokenizer's first end-of-sequence token.
  text::ChatExample example(const Episode& episode, const std::string& answer) const;
  /// Does the same for an answer that is a whole message. With a chat template, `turns`
  /// says whether earlier messages of the assistant are learned as well. Without one,
  /// only the message's content counts.
  text::ChatExample example(const Episode& episode, const text::ChatMessage& answer,
                            text::LearnedTurns turns) const;
  bool is_chat() const { return chat_template_.has_value(); }

 private:
  std::vector<text::ChatMessage> messages(const Episode& episode) const;
  static text::ChatOptions chat_options(const Episode& episode);
  bool skips() const { return data_.on_error() == proto::DataSection::SKIP; }
  UsableItems check(Split split, uint64_t wanted, const CheckSetup& setup);
  ItemProblem problem(Split split, uint64_t item, const std::vector<int32_t>& tokens) const;
  /// Reads an item. Throws a usage Error when it cannot be used.
  Prompt prompt(Split split, uint64_t item) const;
  /// Reads an item of an unlimited split, or one that is drawn in its place.
  Prompt generated(Split split, uint64_t index) const;

  const proto::DataSection& data_;
  const Environment& env_;
  const text::Tokenizer& tokenizer_;
  uint64_t seed_;
  std::optional<text::ChatTemplate> chat_template_;
  UsableItems train_, val_;  // for finite splits
  int64_t longest_train_ = 0, longest_val_ = 0;
};

/// Returns position `index` of a pseudo-random permutation of [0, size) that is keyed
/// by (seed, epoch). It is a Feistel network with cycle walking over Philox, so nothing
/// is stored however large the data set is.
uint64_t permuted_index(uint64_t seed, uint64_t epoch, uint64_t size, uint64_t index);

}  // namespace orrery::actors
