#include "actors/envs/row_prompt.h"

#include <cstdlib>

#include "core/error.h"

namespace orrery::actors {

RowPrompt row_prompt(const nlohmann::json& object, const std::string& key, std::string_view line,
                     const std::string& where) {
  RowPrompt prompt;
  const auto& value = object.at(key);
  if (value.is_string()) {
    prompt.messages = {{"user", value.get<std::string>()}};
  } else if (value.is_array()) {
    // The messages with all their keys, and the tools. The line is read again for them:
    // templates print the keys of objects in the order in which they stand.
    const text::OrderedJson ordered =
        text::OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
    prompt.messages = text::chat_messages_from_json(ordered.at(key), where);
    const auto tools = ordered.find("tools");
    if (tools != ordered.end() && !tools->is_null()) {
      if (!tools->is_array()) fail("{}: \"tools\" is {}, not a list", where, tools->type_name());
      text::check_json_depth(*tools, where);
      prompt.tools = *tools;
    }
  } else {
    fail("{}: \"{}\" is {}, neither text nor a list of messages", where, key, value.type_name());
  }
  for (const text::ChatMessage& message : prompt.messages) {
    prompt.text += (prompt.text.empty() ? "" : "\n\n") + message.content;
  }
  return prompt;
}

DataRow data_row_at(const std::string& where) {
  const size_t colon = where.rfind(':');
  if (colon == std::string::npos) return {};
  return {where.substr(0, colon), std::strtoull(where.c_str() + colon + 1, nullptr, 10)};
}

}  // namespace orrery::actors
