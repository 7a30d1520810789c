// What `generate --chat` asks: conversations from the command line or from a file, with
// tools and variables.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "text/chat_template.h"

namespace orrery::tools {

struct ChatInput {
  bool chat = false;
  std::optional<std::string> system;  ///< sent even if it is empty
  std::vector<std::string> template_args;
  std::string messages_file, tools_file;
  std::string template_file;  ///< replaces the model's own template, unless it is empty

  void add_to(CLI::App& command);
};

struct Conversation {
  std::vector<text::ChatMessage> messages;
  text::ChatOptions options;
};

/// Returns one conversation for each prompt, or those of the file. The file holds a
/// list of messages, an object with `messages` and perhaps `tools`,
/// `chat_template_kwargs` and `add_generation_prompt`, or lines of these. Throws a
/// usage Error that names the option or file:line.
std::vector<Conversation> read_conversations(const ChatInput& input,
                                             const std::vector<std::string>& prompts);

/// Returns the --template-arg options as an object. A value is JSON (false, 3, "text",
/// [1]), or else a text as it stands.
text::OrderedJson template_arguments(const std::vector<std::string>& assignments);

}  // namespace orrery::tools
