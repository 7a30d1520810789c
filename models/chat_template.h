// Conversations as text, by the model's own chat template.
//
// The template is the Jinja text of tokenizer_config.json or chat_template.jinja. It is parsed once and run
// natively (jinja_parser.h, jinja_interpreter.h) with what Hugging Face transformers gives it: messages,
// add_generation_prompt, tools and documents (always none: calling tools is out of scope), the special
// tokens, further variables of the caller. So ChatML, Qwen 2 to 3, Llama 3 to 3.3 and templates like them
// print exactly what apply_chat_template prints. A template that needs more of Jinja than chat templates use
// is refused when it is read, with an Error that names the file, what is not supported and how the template
// begins; it is never rendered otherwise than Jinja would.
//
// One exception is made on purpose: today's date is not available (strftime_now is undefined), because a
// prompt must be the same tomorrow. Llama 3.2's template then takes its own fallback, "26 Jul 2024"; give
// date_string to choose another.
//
// A model without a template is *plain*: the contents of the messages one after the other, nothing between,
// roles ignored.
//
// Immutable after construction; all const members may be called from any number of threads at once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/tokenizer.h"

namespace orrery {

struct ChatMessage {
  std::string role;  ///< system, user or assistant; what others mean is up to the template
  std::string content;
};

struct ChatOptions {
  /// Ends the text with what opens the assistant's turn.
  bool add_generation_prompt = true;
  /// Further true/false variables: Qwen 3's {"enable_thinking", false}.
  std::map<std::string, bool> flags;
  /// Further text variables: {"date_string", "26 Jul 2024"}.
  std::map<std::string, std::string> strings;
};

class ChatTemplate {
 public:
  /// The template of a loaded tokenizer; plain when it has none. Renders one sample conversation, so that a
  /// template which cannot be rendered is refused here and not in the middle of a run.
  explicit ChatTemplate(const Tokenizer& tokenizer);

  /// A template from its text; an empty text is plain. `file` is for messages; empty tokens are undefined to
  /// the template.
  ChatTemplate(const std::string& jinja, const std::string& file, const std::string& bos_token,
               const std::string& eos_token, const std::string& pad_token = {});
  /// `tokens`: the named special tokens, "bos_token" -> its text.
  ChatTemplate(const std::string& jinja, const std::string& file,
               const std::map<std::string, std::string>& tokens);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  bool is_plain() const;

  /// The text of a conversation. Throws Error when there is no message, or when the template refuses the
  /// conversation (raise_exception), naming the file.
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;

  /// render() as ids. A template prints the special tokens it wants, BOS included, so none are added; a plain
  /// conversation gets those of the tokenizer's post-processor.
  std::vector<int32_t> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                              const ChatOptions& options = {}) const;

 private:
  struct Program;
  std::unique_ptr<const Program> program_;  // null when plain
};

inline std::string render_chat(const ChatTemplate& chat_template, std::span<const ChatMessage> messages,
                               bool add_generation_prompt) {
  return chat_template.render(messages, {add_generation_prompt, {}, {}});
}

}  // namespace orrery
