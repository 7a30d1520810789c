// JSON Lines data: one object a line. Every problem is reported with file:line.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::actors {

/// Calls row(object, "file:line", line) for every non-empty line. A line that is not a
/// JSON object, and an Error that `row` throws, is an Error with file:line; with `skip`
/// such lines are left out, and one warning says how many and why the first, but a
/// usage error of `row` (exit code 2) is passed on: no bad row, but a configuration
/// that fits none. A file of another format (Parquet, CSV, gzip ...) is refused by name
/// (data_format.h).
/// Error when a file cannot be read or holds no usable row. Exit code 2 for all but a
/// failing disk: starting again mends no data.
void read_jsonl(const std::vector<std::string>& files, bool skip,
                const std::function<void(const nlohmann::json& object, const std::string& where,
                                         std::string_view line)>& row);

/// The numbers at object[path[0]][path[1]]..., or in the list there, in order and as
/// the text of `line` has them: a parsed number may have been rounded. `line` is a JSON
/// object.
std::vector<std::string> json_number_texts(std::string_view line,
                                           const std::vector<std::string>& path);

/// object[key] as a string; Error naming `where` and the key when absent or of another
/// type.
std::string json_string(const nlohmann::json& object, const std::string& key,
                        const std::string& where);

}  // namespace orrery::actors
