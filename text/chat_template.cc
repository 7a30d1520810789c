#include "text/chat_template.h"

#include <algorithm>
#include <array>
#include <set>

#include "core/ascii.h"
#include "core/error.h"
#include "core/log.h"
#include "text/jinja_error.h"
#include "text/jinja_filters.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

constexpr size_t kMaxTemplate = size_t{1} << 20;
/// The variables that a template always has, besides those that a caller chooses.
constexpr std::array<std::string_view, 4> kOwnNames = {"messages", "tools", "documents",
                                                       "add_generation_prompt"};
constexpr const char* kDateFunction = "strftime_now";

using Variables = std::vector<std::pair<std::string, jinja::Value>>;

/// The beginning of a template, on one line.
std::string beginning(const std::string& jinja) {
  std::string out;
  const size_t valid = std::min(find_invalid_utf8(jinja), jinja.size());
  for (const char c :
       std::string_view(jinja).substr(0, jinja::text_offset(jinja.substr(0, valid), 80))) {
    if (c == '\n') {
      out += "\\n";
    } else {
      out.push_back(is_control(c) ? ' ' : c);
    }
  }
  return out;
}

/// The error as one line of UTF-8, whatever it quotes from a template or conversation.
std::string one_line(const Error& error) {
  std::string out;
  append_lossy_utf8(error.what(), /*more_follows=*/false, out);
  for (char& c : out) c = is_control(c) ? ' ' : c;
  return out;
}

/// The conversations that a template is tried on when it is read, until it renders one.
/// Some templates need tools, some need lists of parts.
std::vector<std::pair<std::vector<ChatMessage>, ChatOptions>> samples() {
  const OrderedJson tool =
      OrderedJson::parse(R"({"type": "function", "function": {"name": "f", "description": "d",
    "parameters": {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}, "required": []}}})");
  const OrderedJson parts =
      OrderedJson::parse(R"({"role": "user", "content": [{"type": "text", "text": "Hello"}]})");
  const ChatMessage user{"user", "Hello", {}};
  ChatOptions with_tools;
  with_tools.tools = OrderedJson::array({tool});
  return {{{user}, {}},
          {{user}, with_tools},
          {{{"system", "Hello", {}}, user}, {}},
          {{chat_message_from_json(parts, "sample")}, {}},
          {{{"system", "Hello", {}},
            user,
            {"assistant", "Hello", {}},
            user,
            {"assistant", "Hello", {}},
            user},
           {}}};
}

jinja::Value variable(const std::string& name, const OrderedJson& value) {
  if (name == kDateFunction && value.is_string())
    return jinja::date_function(value.get_ref<const std::string&>());
  return jinja::from_json(value);
}

void add_variables(const OrderedJson& given, Variables& out) {
  if (!given.is_object()) return;
  for (const auto& [name, value] : given.items()) {
    if (std::find(kOwnNames.begin(), kOwnNames.end(), name) != kOwnNames.end())
      fail_usage("the chat template's variable {} is not yours to set: leave it out", name);
    out.emplace_back(name, variable(name, value));
  }
}

/// The message as transformers passes it to a template: without keys that are null, and
/// with its reasoning under the names that templates use.
jinja::Value message_value(const ChatMessage& message) {
  using jinja::Value;
  jinja::Members members;
  const bool whole = message.more.is_object() && message.more.contains("role");
  if (!whole) {
    members.emplace_back(Value(std::string("role")), message.role);
    members.emplace_back(Value(std::string("content")), message.content);
  }
  if (message.more.is_object()) {
    for (const auto& [key, value] : message.more.items()) {
      if (value.is_null()) continue;
      const bool text = (key == "role" || key == "content") && value.is_string();
      members.emplace_back(Value(key), text ? Value(key == "role" ? message.role : message.content)
                                            : jinja::from_json(value));
    }
    const auto member = [&](std::string_view wanted) -> const Value* {
      const auto found = std::find_if(members.begin(), members.end(), [&](const auto& one) {
        return *one.first.string() == wanted;
      });
      return found == members.end() ? nullptr : &found->second;
    };
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      const Value* found = member(name);
      if (found == nullptr) continue;
      const Value reasoning = *found;
      // transformers puts it first. If the message has the key elsewhere, that value
      // counts.
      members.emplace(members.begin(), Value(std::string("thinking")), reasoning);
      members.emplace_back(Value(std::string("reasoning_content")), reasoning);
      break;
    }
  }
  return Value::dict(std::move(members));
}

void collect_names(const jinja::Expression* expression, std::set<std::string>& names) {
  if (expression == nullptr) return;
  if (expression->kind == jinja::ExpressionKind::kName) names.insert(expression->text);
  for (const auto& child : expression->children) collect_names(child.get(), names);
}

void collect_names(const jinja::Statement& statement, std::set<std::string>& names) {
  collect_names(statement.expression.get(), names);
  collect_names(statement.filter.get(), names);
  for (const auto& parameter : statement.parameters) collect_names(parameter.fallback.get(), names);
  for (const auto* block : {&statement.body, &statement.otherwise}) {
    for (const jinja::Statement& inner : *block) collect_names(inner, names);
  }
}

}  // namespace

void check_json_depth(const OrderedJson& json, const std::string& where) {
  constexpr int kMaxDepth = 100;
  std::vector<std::pair<const OrderedJson*, int>> open = {{&json, 0}};
  while (!open.empty()) {
    const auto [value, depth] = open.back();
    open.pop_back();
    if (depth > kMaxDepth) fail("{}: the JSON is nested deeper than {}", where, kMaxDepth);
    if (!value->is_structured()) continue;
    for (const auto& inner : *value) open.emplace_back(&inner, depth + 1);
  }
}

ChatMessage chat_message_from_json(const OrderedJson& message, const std::string& where) {
  if (!message.is_object())
    fail("{}: a message is {}, not an object with role and content", where, message.type_name());
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string())
    fail("{}: a message has no text as \"role\"", where);
  ChatMessage out{role->get<std::string>(), {}, {}};
  const auto content = message.find("content");
  const bool text = content != message.end() && content->is_string();
  if (text) {
    out.content = content->get<std::string>();
  } else if (content != message.end() && content->is_array()) {
    for (const auto& part : *content) {
      if (part.is_object() && part.contains("text") && part["text"].is_string())
        out.content += part["text"].get_ref<const std::string&>();
    }
  } else if (content != message.end() && !content->is_null() && !content->is_object()) {
    fail("{}: the \"content\" of a message is {}: give a text, a list of parts or an object", where,
         content->type_name());
  }
  // `more` stays null when role and content say everything.
  check_json_depth(message, where);
  if (!text || message.size() != 2 || message.begin().key() != "role") out.more = message;
  return out;
}

std::vector<ChatMessage> chat_messages_from_json(const OrderedJson& messages,
                                                 const std::string& where) {
  if (!messages.is_array()) fail("{}: {} is no list of messages", where, messages.type_name());
  if (messages.empty()) fail("{}: the conversation has no messages", where);
  std::vector<ChatMessage> out;
  for (const auto& message : messages) out.push_back(chat_message_from_json(message, where));
  return out;
}

struct ChatTemplate::Program {
  std::string file;
  Variables variables;  // those of the caller, then the tokens
  jinja::Statement root;

  std::string run(std::span<const ChatMessage> messages, const ChatOptions& options) const;
};

std::string ChatTemplate::Program::run(std::span<const ChatMessage> messages,
                                       const ChatOptions& options) const {
  using jinja::Value;
  jinja::List list;
  for (const ChatMessage& message : messages) list.push_back(message_value(message));
  Variables all;
  all.emplace_back("messages", Value::list(std::move(list)));
  all.emplace_back("add_generation_prompt", options.add_generation_prompt);
  all.emplace_back("tools", jinja::from_json(options.tools));
  all.emplace_back("documents", jinja::None{});
  add_variables(options.variables, all);
  // The first of two variables with one name counts.
  all.insert(all.end(), variables.begin(), variables.end());
  return jinja::run_template(root, std::move(all));
}

std::unique_ptr<const ChatTemplate::Program> ChatTemplate::load(
    const std::string& jinja, const std::string& file,
    const std::map<std::string, std::string>& tokens, const OrderedJson& variables) {
  if (jinja.empty()) return nullptr;
  if (jinja.size() > kMaxTemplate)
    fail("{}: a chat template of {} bytes is too long", file, jinja.size());
  auto program = std::make_unique<Program>();
  program->file = file;
  try {
    program->root = jinja::parse_template(jinja);
  } catch (const Error& error) {
    fail("{}: this chat template is not supported: {} (it begins with: {})", file, one_line(error),
         beginning(jinja));
  }
  std::set<std::string> names;
  collect_names(program->root, names);
  add_variables(variables, program->variables);
  for (const auto& [name, value] : program->variables) {
    if (!names.contains(name))
      spdlog::warn("{}: the chat template reads no variable {}; is it the right name?", file, name);
  }
  for (const auto& [name, token] : tokens) program->variables.emplace_back(name, token);
  for (const auto& [messages, options] : samples()) {
    try {
      program->run(messages, options);
      break;
    } catch (const jinja::UnsupportedTemplate& error) {
      fail("{}: this chat template is not supported: {} (it begins with: {})", file,
           one_line(error), beginning(jinja));
    } catch (const Error&) {
      // The sample may be at fault: the template may want a name, a key or a variable
      // that the user's conversations have, or refuse the sample with raise_exception.
    }
  }
  return program;
}

ChatTemplate::ChatTemplate(const std::string& jinja, const std::string& file,
                           const std::map<std::string, std::string>& tokens,
                           const OrderedJson& variables)
    : program_(load(jinja, file, tokens, variables)) {}

ChatTemplate::ChatTemplate(const Tokenizer& tokenizer, const OrderedJson& variables)
    : program_(load(tokenizer.chat_template(), tokenizer.chat_template_file(),
                    tokenizer.template_tokens(), variables)),
      tool_program_(load(tokenizer.tool_template(), tokenizer.tool_template_file(),
                         tokenizer.template_tokens(), variables)) {}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

bool ChatTemplate::is_plain() const { return program_ == nullptr; }

std::string ChatTemplate::render(std::span<const ChatMessage> messages,
                                 const ChatOptions& options) const {
  if (messages.empty()) fail("a conversation without messages cannot be rendered");
  if (is_plain()) {
    std::string text;
    for (const ChatMessage& message : messages) text += message.content;
    return text;
  }
  const Program& program =
      tool_program_ != nullptr && !options.tools.is_null() ? *tool_program_ : *program_;
  try {
    return program.run(messages, options);
  } catch (const Error& error) {
    fail("{}: chat template: {}", program.file, one_line(error));
  }
}

std::vector<int32_t> ChatTemplate::encode(const Tokenizer& tokenizer,
                                          std::span<const ChatMessage> messages,
                                          const ChatOptions& options) const {
  return tokenizer.encode(render(messages, options), is_plain());
}

}  // namespace orrery::text
