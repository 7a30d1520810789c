// What a row of a data file asks, and where it stands: for all environments that read
// rows.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "actors/environment.h"

namespace orrery::actors {

struct RowPrompt {
  std::vector<text::ChatMessage> messages;
  text::OrderedJson tools;  ///< null where the row has none
  std::string text;         ///< the contents of the messages, an empty line between them
};

/// object[key], which is there: text, or a list of messages, for which the row may have
/// tools. `line` is the object's text. Error with `where` ("file:line") for anything
/// else.
RowPrompt row_prompt(const nlohmann::json& object, const std::string& key, std::string_view line,
                     const std::string& where);

/// Of "file:line".
DataRow data_row_at(const std::string& where);

}  // namespace orrery::actors
