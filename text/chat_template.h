// Conversations as text, by the model's own chat template.
//
// The template is the Jinja text of tokenizer_config.json or chat_template.jinja. It is
// parsed once and run natively (jinja_parser.h, jinja_interpreter.h) with what
// apply_chat_template of Hugging Face transformers gives it: messages with all their
// keys, tools, add_generation_prompt, the named special tokens, and the caller's
// variables. So it prints what apply_chat_template prints, for every template that
// stays inside the language of docs/formats.md ("Chat templates"). One that needs more
// is refused when it is read, with an Error that names the file, what is not supported
// and how the template begins; it is never rendered otherwise than Jinja would.
//
// One exception is made on purpose: today's date is not available (strftime_now is
// undefined), because a prompt must be the same tomorrow. Llama 3.2's template then
// takes its own fallback, "26 Jul 2024"; a template that calls strftime_now all the
// same is refused with what to set: the variable strftime_now, whose text is a date
// ("2025-07-26"), makes it the function as of that day.
//
// A model without a template is *plain*: the contents of the messages one after the
// other, nothing between, roles ignored.
//
// Immutable after construction; all const members may be called from any number of
// threads at once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace orrery::text {

/// JSON whose objects keep the order of their keys, which templates print.
using OrderedJson = nlohmann::ordered_json;

struct ChatMessage {
  std::string role;  ///< system, user or assistant; what others mean is up to the template
  std::string
      content;  ///< its text; the texts of the parts one after the other where `more` has a list of them
  /// Null, or the message's further keys: tool_calls, name, reasoning_content ... With
  /// "role" in it it is the whole message as it stood, in the order of its keys: the
  /// content is then this one where it is no text, and absent where there is none.
  OrderedJson more;
};

/// Throws Error naming `where` for JSON nested deeper than templates take: copying and
/// printing it would exhaust the stack.
void check_json_depth(const OrderedJson& json, const std::string& where);

/// A message of a conversation in JSON. Throws Error naming `where` unless it is an
/// object whose role is a text and whose content is a text, a list of parts, an object,
/// null or absent.
ChatMessage chat_message_from_json(const OrderedJson& message, const std::string& where);
/// A list of them, which must not be empty.
std::vector<ChatMessage> chat_messages_from_json(const OrderedJson& messages,
                                                 const std::string& where);

struct ChatOptions {
  /// Ends the text with what opens the assistant's turn.
  bool add_generation_prompt = true;
  /// Null, or a list of tools as JSON schemas.
  OrderedJson tools;
  /// Null, or an object of further variables of any kind: Qwen 3's {"enable_thinking":
  /// false}.
  OrderedJson variables;
};

class ChatTemplate {
 public:
  /// The template of a loaded tokenizer, and the one named tool_use where the folder
  /// has one, which conversations with tools go through; plain when it has none.
  /// Renders some sample conversations, so that a template of which something is not
  /// supported is refused here; what it wants of a conversation that the samples lack
  /// is known when it renders the user's. `variables` is null or
  /// an object: what every rendering finds, unless its options say otherwise. A
  /// variable that the template never reads is named in a warning. Throws Error (usage)
  /// for a name that is the template's own, such as messages.
  explicit ChatTemplate(const Tokenizer& tokenizer, const OrderedJson& variables = {});

  /// A template from its text; an empty text is plain. `file` is for messages; `tokens`
  /// are bos_token, eos_token and so on, the others are undefined to the template.
  ChatTemplate(const std::string& jinja, const std::string& file,
               const std::map<std::string, std::string>& tokens, const OrderedJson& variables = {});
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  bool is_plain() const;

  /// The text of a conversation. Throws Error when there is no message, or when the
  /// template refuses the conversation (raise_exception), naming the file.
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;

  /// render() as ids. A template prints the special tokens it wants, BOS included, so
  /// none are added; a plain conversation gets those of the tokenizer's post-processor.
  std::vector<int32_t> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                              const ChatOptions& options = {}) const;

 private:
  struct Program;
  static std::unique_ptr<const Program> load(const std::string& jinja, const std::string& file,
                                             const std::map<std::string, std::string>& tokens,
                                             const OrderedJson& variables);

  std::unique_ptr<const Program> program_;       // null when plain
  std::unique_ptr<const Program> tool_program_;  // null when program_ is for tools as well
};

}  // namespace orrery::text
