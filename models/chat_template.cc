#include "models/chat_template.h"

#include "core/error.h"
#include "models/jinja_interpreter.h"
#include "models/jinja_parser.h"

namespace orrery {
namespace {

constexpr size_t kMaxTemplate = size_t{1} << 20;

/// How a template begins, on one line.
std::string beginning(const std::string& jinja) {
  std::string out;
  for (const char c : jinja.substr(0, 80)) {
    if (c == '\n') {
      out += "\\n";
    } else {
      out.push_back(c);
    }
  }
  while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80)
    out.pop_back();  // a cut character
  return out;
}

}  // namespace

struct ChatTemplate::Program {
  std::string file;
  std::vector<std::pair<std::string, jinja::Value>> tokens;
  jinja::Block block;

  std::string run(std::span<const ChatMessage> messages, const ChatOptions& options) const;
};

std::string ChatTemplate::Program::run(std::span<const ChatMessage> messages,
                                       const ChatOptions& options) const {
  using jinja::Value;
  jinja::List list;
  for (const ChatMessage& message : messages) {
    list.push_back(Value::dict({{"role", message.role}, {"content", message.content}}));
  }
  std::vector<std::pair<std::string, Value>> variables = tokens;
  variables.emplace_back("messages", Value::list(std::move(list)));
  variables.emplace_back("add_generation_prompt", options.add_generation_prompt);
  variables.emplace_back("tools", jinja::None{});
  variables.emplace_back("documents", jinja::None{});
  for (const auto& [name, flag] : options.flags) variables.emplace_back(name, flag);
  for (const auto& [name, text] : options.strings) variables.emplace_back(name, text);
  return jinja::run_template(block, std::move(variables));
}

ChatTemplate::ChatTemplate(const std::string& jinja, const std::string& file, const std::string& bos_token,
                           const std::string& eos_token, const std::string& pad_token)
    : ChatTemplate(jinja, file, [&] {
        std::map<std::string, std::string> tokens;
        if (!bos_token.empty()) tokens["bos_token"] = bos_token;
        if (!eos_token.empty()) tokens["eos_token"] = eos_token;
        if (!pad_token.empty()) tokens["pad_token"] = pad_token;
        return tokens;
      }()) {}

ChatTemplate::ChatTemplate(const std::string& jinja, const std::string& file,
                           const std::map<std::string, std::string>& tokens) {
  if (jinja.empty()) return;
  if (jinja.size() > kMaxTemplate) fail("{}: a chat template of {} bytes is too long", file, jinja.size());
  auto program = std::make_unique<Program>();
  program->file = file;
  for (const auto& [name, text] : tokens) program->tokens.emplace_back(name, text);
  try {
    program->block = jinja::parse_template(jinja);
    const std::vector<ChatMessage> sample = {{"user", "Hello"}};
    program->run(sample, {});
  } catch (const Error& error) {
    fail("{}: this chat template is not supported: {} (it begins with: {})", file, error.what(),
         beginning(jinja));
  }
  program_ = std::move(program);
}

ChatTemplate::ChatTemplate(const Tokenizer& tokenizer)
    : ChatTemplate(tokenizer.chat_template(), tokenizer.chat_template_file(), tokenizer.template_tokens()) {}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

bool ChatTemplate::is_plain() const { return program_ == nullptr; }

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  if (messages.empty()) fail("a conversation without messages cannot be rendered");
  if (is_plain()) {
    std::string text;
    for (const ChatMessage& message : messages) text += message.content;
    return text;
  }
  try {
    return program_->run(messages, options);
  } catch (const Error& error) {
    fail("{}: chat template: {}", program_->file, error.what());
  }
}

std::vector<int32_t> ChatTemplate::encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                          const ChatOptions& options) const {
  return tokenizer.encode(render(messages, options), is_plain());
}

}  // namespace orrery
