// Renders conversations as text with the model's own chat template.
//
// The template is the Jinja text of tokenizer_config.json or chat_template.jinja. It is
// parsed once and run natively (jinja_parser.h, jinja_interpreter.h) with the variables
// that apply_chat_template of Hugging Face transformers provides: messages with all
// their keys, tools, add_generation_prompt, the named special tokens, and the caller's
// own. The output is that of apply_chat_template for every template that stays inside
// the language of docs/formats.md ("Chat templates"). A template that needs more is
// refused when it is read, with an Error that names the file, the unsupported feature
// and the template's beginning. No template is ever rendered differently from Jinja.
//
// There is one deliberate exception: today's date is not available (strftime_now is
// undefined), because a prompt must be the same tomorrow. Llama 3.2's template then
// takes its own fallback, "26 Jul 2024". A template that calls strftime_now anyway is
// refused with an Error that says what to set: if the variable strftime_now is a date
// ("2025-07-26"), it becomes the function with that date as today.
//
// A model without a template is *plain*: a conversation is the contents of its messages
// one after the other, with nothing between them, and roles are ignored.
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

/// JSON whose objects keep the order of their keys, since templates print it.
using OrderedJson = nlohmann::ordered_json;

struct ChatMessage {
  /// system, user or assistant; other roles mean what the template makes of them.
  std::string role;
  /// The message's text. Where `more` has a list of parts, their texts joined.
  std::string content;
  /// Null, or the message's further keys: tool_calls, name, reasoning_content ... If it
  /// has the key "role", it is the whole message with its keys in their order; a
  /// content in it that is not a text then counts instead of `content`, and a content
  /// that it lacks is absent.
  OrderedJson more;
};

/// Throws Error naming `where` for JSON that is nested deeper than templates accept;
/// copying and printing it would exhaust the stack.
void check_json_depth(const OrderedJson& json, const std::string& where);

/// Reads a message of a conversation. Throws Error naming `where` unless it is an
/// object whose role is a text and whose content is a text, a list of parts, an object,
/// null or absent.
ChatMessage chat_message_from_json(const OrderedJson& message, const std::string& where);
/// Reads a list of messages, which must not be empty.
std::vector<ChatMessage> chat_messages_from_json(const OrderedJson& messages,
                                                 const std::string& where);

struct ChatOptions {
  /// Whether the text ends with the opening of the assistant's turn.
  bool add_generation_prompt = true;
  /// Null, or a list of tools as JSON schemas.
  OrderedJson tools;
  /// Null, or an object of further variables of any kind, such as Qwen 3's
  /// {"enable_thinking": false}.
  OrderedJson variables;
};

class ChatTemplate {
 public:
  /// Takes the template of a loaded tokenizer, and for conversations with tools the one
  /// named tool_use where the folder has it. Plain when the folder has no template. The
  /// constructor renders some sample conversations, so that it can refuse a template
  /// that needs something unsupported. A feature that only the user's conversations
  /// reach is refused when they are rendered. `variables` is null or an object:
  /// variables of every rendering, unless its options replace them. A variable that the
  /// template never reads gets a warning. Throws Error (usage) for a name that the
  /// template has anyway, such as messages.
  explicit ChatTemplate(const Tokenizer& tokenizer, const OrderedJson& variables = {});

  /// Takes the template's text; an empty text is plain. `file` is for messages.
  /// `tokens` are bos_token, eos_token and so on; a name that they lack is undefined.
  ChatTemplate(const std::string& jinja, const std::string& file,
               const std::map<std::string, std::string>& tokens, const OrderedJson& variables = {});
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  bool is_plain() const;

  /// The text of a conversation. Throws Error when there is no message, or, naming the
  /// file, when the template refuses the conversation (raise_exception).
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;

  /// The ids of render(). A template prints its special tokens itself, BOS included, so
  /// none are added. A plain conversation gets those of the tokenizer's post-processor.
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
