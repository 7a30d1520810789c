#include "tools/chat_input.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/json_duplicates.h"
#include "text/tokenizer_utf8.h"
#include "tools/commands.h"

namespace orrery::tools {
namespace {

constexpr size_t kMaxFile = size_t{1} << 30;

std::string read_text(const std::string& option, const std::string& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error))
    fail_usage("{} {}: no such file", option, file);
  if (std::filesystem::file_size(file, error) > kMaxFile)
    fail_usage("{} {}: the file is too large", option, file);
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) fail_usage("{} {}: the file cannot be read", option, file);
  return text.str();
}

void check_depth(const text::OrderedJson& json, const std::string& where) {
  try {
    text::check_json_depth(json, where);
  } catch (const Error& error) {
    fail_usage("{}", error.what());
  }
}

void check_keys(const std::string& text, const std::string& where) {
  try {
    refuse_duplicate_keys(text, where);
  } catch (const Error& error) {
    fail_usage("{}", error.what());
  }
}

text::OrderedJson tools_of(const text::OrderedJson& json, const std::string& where) {
  if (json.is_null()) return {};
  check_depth(json, where);
  if (!json.is_array()) fail_usage("{}: tools are {}, not a list", where, json.type_name());
  for (const auto& tool : json) {
    if (!tool.is_object()) fail_usage("{}: a tool is {}, not an object", where, tool.type_name());
  }
  return json;
}

Conversation conversation(const text::OrderedJson& json, const text::OrderedJson& tools,
                          const std::string& where) {
  check_depth(json, where);
  Conversation out;
  out.options.tools = tools;
  const text::OrderedJson* messages = &json;
  if (json.is_object()) {
    messages = nullptr;
    for (const auto& [key, value] : json.items()) {
      if (key == "messages") {
        messages = &value;
      } else if (key == "tools") {
        out.options.tools = tools_of(value, where);
      } else if (key == "chat_template_kwargs") {
        if (!value.is_object())
          fail_usage("{}: chat_template_kwargs is {}, not an object", where, value.type_name());
        out.options.variables = value;
      } else if (key == "add_generation_prompt") {
        if (!value.is_boolean())
          fail_usage("{}: add_generation_prompt is {}, not true or false", where,
                     value.type_name());
        out.options.add_generation_prompt = value.get<bool>();
      } else {
        fail_usage(
            "{}: unknown key \"{}\"; there are messages, tools, "
            "chat_template_kwargs and add_generation_prompt",
            where, key.substr(0, 60));
      }
    }
  }
  if (messages == nullptr || !messages->is_array()) {
    fail_usage("{}: give a list of messages, or an object with \"messages\"", where);
  }
  try {
    out.messages = text::chat_messages_from_json(*messages, where);
  } catch (const Error& error) {
    fail_usage("{}", error.what());
  }
  return out;
}

std::vector<Conversation> conversations_of_file(const std::string& file,
                                                const text::OrderedJson& tools) {
  const std::string text = read_text("--messages", file);
  if (text::OrderedJson whole = text::OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
      !whole.is_discarded()) {
    check_keys(text, "--messages " + file);
    return {conversation(whole, tools, "--messages " + file)};
  }
  std::vector<Conversation> out;
  std::istringstream lines(text);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("--messages {}:{}", file, number);
    const text::OrderedJson json =
        text::OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) fail_usage("{}: neither the file nor this line is JSON", where);
    check_keys(line, where);
    out.push_back(conversation(json, tools, where));
  }
  if (out.empty()) fail_usage("--messages {}: the file has no conversation", file);
  return out;
}

}  // namespace

void ChatInput::add_to(CLI::App& command) {
  command.add_flag("--chat", chat, "Send the prompt as a user message through the chat template");
  command.add_option("--system", system, "System message (with --chat); \"\" sends an empty one");
  command.add_option(
      "--messages", messages_file,
      "Instead of --prompt (with --chat): a file with a list of messages, or JSON lines of them");
  command.add_option("--tools", tools_file,
                     "File with a list of tools as JSON schemas (with --chat)");
  command.add_option(
      "--chat-template", template_file,
      "Jinja file that takes the place of the model's own chat template (with --chat)");
  add_texts(command, "--template-arg", template_args,
            "NAME=VALUE: a variable of the chat template, such as enable_thinking=false; "
            "may be given several times");
}

text::OrderedJson template_arguments(const std::vector<std::string>& assignments) {
  text::OrderedJson out = text::OrderedJson::object();
  for (const std::string& assignment : assignments) {
    const size_t equals = assignment.find('=');
    if (equals == 0 || equals == std::string::npos)
      fail_usage("--template-arg '{}': give NAME=VALUE, such as enable_thinking=false",
                 assignment.substr(0, 60));
    const std::string name = assignment.substr(0, equals), text = assignment.substr(equals + 1);
    if (text::find_invalid_utf8(assignment) != std::string::npos)
      fail_usage("--template-arg {}: not UTF-8", name);
    if (text == "True" || text == "False") {
      out[name] = text == "True";
      continue;
    }
    text::OrderedJson value = text::OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
    check_depth(value, "--template-arg " + name);
    if (!value.is_discarded()) check_keys(text, "--template-arg " + name);
    out[name] = value.is_discarded() ? text::OrderedJson(text) : std::move(value);
  }
  return out;
}

std::vector<Conversation> read_conversations(const ChatInput& input,
                                             const std::vector<std::string>& prompts) {
  text::OrderedJson tools;
  if (!input.tools_file.empty()) {
    const std::string text = read_text("--tools", input.tools_file);
    const text::OrderedJson json =
        text::OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) fail_usage("--tools {}: not JSON", input.tools_file);
    check_keys(text, "--tools " + input.tools_file);
    tools = tools_of(json, "--tools " + input.tools_file);
  }
  if (!input.messages_file.empty()) return conversations_of_file(input.messages_file, tools);
  std::vector<Conversation> out;
  for (const std::string& prompt : prompts) {
    Conversation one;
    one.options.tools = tools;
    if (input.system) one.messages.push_back({"system", *input.system, {}});
    one.messages.push_back({"user", prompt, {}});
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace orrery::tools
