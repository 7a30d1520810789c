// Rows of one's own to learn from: sft.train_files and sft.val_files, JSON Lines
// (docs/formats.md). A row has
//
//   prompt, response   prompt: a text, or a list of messages; response (or completion): a text, or the
//                      assistant's message, alone or in a list of one. The response is learned.
//   messages           a conversation (system, user, assistant, tool), of which each assistant's message is
//                      learned; what follows the last one is left out. Needs data.apply_chat_template.
//   tools              for the chat template, as elsewhere
//   weight             of the row's tokens in the loss, >= 0; 1 when absent
//
// Prompts are made as RL's are: data.system_prompt, data.prompt_template, the chat
// template or plain text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/prompt_source.h"
#include "experiments/sft_example.h"
#include "proto/config.pb.h"

namespace orrery::experiments {

/// Immutable and thread-safe once it is made.
class SftRows {
 public:
  /// Reads and measures all rows. `key` names the files in messages: "sft.train_files".
  /// One that cannot be used is a usage Error naming it (file:line), or with
  /// data.on_error: skip left out and counted in a warning; it is an Error when none is
  /// left, or when all have weight 0. Longer ones than sft.max_length are cut at their
  /// end, and a line says how many were.
  SftRows(const std::string& key, const std::vector<std::string>& files,
          const proto::Config& config, const actors::PromptSource& source,
          const text::Tokenizer& tokenizer, const actors::CheckSetup& setup);

  /// In the files' order, without those left out.
  const std::vector<SftExample>& examples() const { return examples_; }

 private:
  std::vector<SftExample> examples_;
};

/// A usage Error when the file of plain text is one of JSON: by its name, or because
/// each of its first lines is an object. Not an Error when it cannot be read.
void check_plain_text(const std::string& file, const std::string& text);

}  // namespace orrery::experiments
