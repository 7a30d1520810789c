// The prompt of a row of a data file, and the row's place in it. All environments that
// read rows share this.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "actors/environment.h"

namespace orrery::actors {

struct RowPrompt {
  std::vector<text::ChatMessage> messages;
  text::OrderedJson tools;  ///< null when the row has none
  std::string text;         ///< the messages' contents, with an empty line between them
};

/// Reads object[key], which exists: a text, or a list of messages, for which the row
/// may also have tools. `line` is the object's text. Throws an Error with `where`
/// ("file:line") for anything else.
RowPrompt row_prompt(const nlohmann::json& object, const std::string& key, std::string_view line,
                     const std::string& where);

/// Takes "file:line" apart.
DataRow data_row_at(const std::string& where);

}  // namespace orrery::actors
