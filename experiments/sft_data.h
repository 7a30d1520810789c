// What the supervised stage learns from: rows of one's own, plain text, or an
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

/// Supervised examples by number; a function of (config, seed, index), so the data
/// cursor is the step. Immutable and thread-safe.
class SftData {
 public:
  /// Reads sft.train_files (experiments/sft_rows.h) or sft.text_files, or without them
  /// measures every demonstration (of an environment that generates them, the first
  /// kGeneratedSample). What is longer than sft.max_length is cut at its end, and a
  /// line says how many were. A demonstration that cannot be used, because its prompt
  /// leaves no room for a response or is refused by the chat template, or because the
  /// row has none, is a usage Error naming the row (file:line); with data.on_error:
  /// skip such rows are left out and counted in a warning. So is a document that is not
  /// UTF-8. The rows of sft.val_files are read and checked as those of sft.train_files.
  /// Error when there is nothing to learn from. Everything must outlive the object.
  SftData(const proto::Config& config, const actors::Environment& env,
          const actors::PromptSource& source, const text::Tokenizer& tokenizer,
          const actors::CheckSetup& setup);

  /// Example `index` of the run: of the ones that can be used, in an order drawn anew
  /// for each epoch.
  SftExample example(uint64_t index) const;
  uint64_t size() const;  ///< of an epoch; 0: unlimited
  /// Of the examples that were measured, the longest as it is learned.
  int64_t longest() const { return longest_; }
  /// Rows of sft.val_files; null without such files.
  const SftRows* val() const { return val_ ? &*val_ : nullptr; }

 private:
  void read_documents(const std::string& file, const actors::CheckSetup& setup);
  void tell_rows() const;
  void check_demonstrations(const actors::CheckSetup& setup);
  /// Not yet cut.
  text::ChatExample demonstration(uint64_t item) const;
  actors::ItemProblem problem(uint64_t item, const text::ChatExample& example) const;
  SftExample cut(text::ChatExample example) const;
  bool skips() const { return config_.data().on_error() == proto::DataSection::SKIP; }

  const proto::Config& config_;
  const actors::Environment& env_;
  const actors::PromptSource& source_;
  const text::Tokenizer& tokenizer_;
  std::optional<SftRows> own_;                   // of sft.train_files
  std::optional<SftRows> val_;                   // of sft.val_files
  std::vector<std::vector<int32_t>> documents_;  // tokens of sft.text_files; empty: demonstrations
  int64_t longest_ = 0;
  actors::UsableItems rows_;  // of an environment with so many items
};

}  // namespace orrery::experiments
