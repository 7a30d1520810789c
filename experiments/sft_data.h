// What the supervised stage learns from: the user's own rows, plain text, or an
// environment's demonstrations.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/environment.h"
#include "actors/item_check.h"
#include "actors/prompt_source.h"
#include "experiments/sft_example.h"
#include "experiments/sft_rows.h"
#include "proto/config.pb.h"
#include "text/tokenizer.h"

namespace orrery::experiments {

/// Supervised examples by number. They are a function of (config, seed, index), so the
/// data cursor is the step. Immutable and thread-safe.
class SftData {
 public:
  /// Reads sft.train_files (experiments/sft_rows.h) or sft.text_files. Without them, it
  /// measures every demonstration of the environment, or the first
  /// kGeneratedItemsChecked if the environment generates them. What is longer than
  /// sft.max_length is cut at its end, and a line says how much was cut.
  ///
  /// A demonstration cannot be used if its prompt leaves no room for a response, if the
  /// chat template refuses it, or if the row has none. It is then a usage Error that
  /// names the row (file:line); with data.on_error: skip such rows are left out and
  /// counted in a warning. The same goes for a document that is not UTF-8. The rows of
  /// sft.val_files are read and checked like those of sft.train_files. It is an Error
  /// when there is nothing to learn from. All arguments but `setup` must outlive the
  /// object.
  SftData(const proto::Config& config, const actors::Environment& env,
          const actors::PromptSource& source, const text::Tokenizer& tokenizer,
          const actors::CheckSetup& setup);

  /// Returns example `index` of the run. The usable examples come in an order that is
  /// drawn anew for each epoch.
  SftExample example(uint64_t index) const;
  uint64_t size() const;  ///< examples in an epoch; 0 when there is no limit
  /// The tokens of the longest example that was measured, after it was cut.
  int64_t longest() const { return longest_; }
  /// The rows of sft.val_files; null without such files.
  const SftRows* val() const { return val_ ? &*val_ : nullptr; }

 private:
  void read_documents(const std::string& file, const actors::CheckSetup& setup);
  void tell_rows() const;
  void check_demonstrations(const actors::CheckSetup& setup);
  /// Reads a demonstration, which is not cut yet.
  text::ChatExample demonstration(uint64_t item) const;
  actors::ItemProblem problem(uint64_t item, const text::ChatExample& example) const;
  SftExample cut(text::ChatExample example) const;
  bool skips() const { return config_.data().on_error() == proto::DataSection::SKIP; }

  const proto::Config& config_;
  const actors::Environment& env_;
  const actors::PromptSource& source_;
  const text::Tokenizer& tokenizer_;
  std::optional<SftRows> own_;                   // rows of sft.train_files
  std::optional<SftRows> val_;                   // rows of sft.val_files
  std::vector<std::vector<int32_t>> documents_;  // tokens of sft.text_files, if there are any
  int64_t longest_ = 0;
  actors::UsableItems rows_;  // usable demonstrations of an environment with finite rows
};

}  // namespace orrery::experiments
