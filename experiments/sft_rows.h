// Rows of the user's own to learn from: sft.train_files and sft.val_files, JSON Lines
// (docs/formats.md). A row has these keys:
//
//   prompt, response  The prompt is a text or a list of messages. The response (or
//                     completion) is a text, or the assistant's message, alone or in a
//                     list of one. The response is learned.
//   messages          A conversation (system, user, assistant, tool). Every message of
//                     the assistant is learned; what follows the last one is left out.
//                     Needs data.apply_chat_template.
//   tools             Tools for the chat template, as elsewhere.
//   weight            The weight of the row's tokens in the loss, >= 0; 1 when absent.
//
// Prompts are made as they are for RL: with data.system_prompt, data.prompt_template,
// and the chat template or plain text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/prompt_source.h"
#include "experiments/sft_example.h"
#include "proto/config.pb.h"

namespace orrery::experiments {

/// Immutable and thread-safe once it is constructed.
class SftRows {
 public:
  /// Reads and measures all rows. `key` names the files in messages: "sft.train_files".
  /// A row that cannot be used is a usage Error that names it (file:line), or with
  /// data.on_error: skip is left out and counted in a warning. It is an Error when no
  /// row is left, or when all have weight 0. Rows longer than sft.max_length are cut at
  /// their end, and a line says how many were.
  SftRows(const std::string& key, const std::vector<std::string>& files,
          const proto::Config& config, const actors::PromptSource& source,
          const text::Tokenizer& tokenizer, const actors::CheckSetup& setup);

  /// The rows that can be used, in the files' order.
  const std::vector<SftExample>& examples() const { return examples_; }

 private:
  std::vector<SftExample> examples_;
};

/// Throws a usage Error when a file that should be plain text is JSON: by its name, or
/// because each of its first lines is an object.
void check_plain_text(const std::string& file, const std::string& text);

}  // namespace orrery::experiments
