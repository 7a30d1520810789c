// Reads JSON Lines: one object per line. Every problem is reported with file:line.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::actors {

/// Calls row(object, "file:line", line) for every non-empty line.
///
/// A line that is not a JSON object is an Error with file:line, and so is a line for
/// which `row` throws an Error. With `skip` such lines are left out, and one warning
/// says how many there were and what was wrong with the first. A usage Error of `row`
/// (exit code 2) is always passed on: it is about a configuration that fits no row. A
/// file of another format (Parquet, CSV, gzip, ...) is refused by name (data_format.h).
///
/// Throws an Error when a file cannot be read or holds no usable row. The exit code is
/// 2 unless the disk fails, because starting again mends no data.
void read_jsonl(const std::vector<std::string>& files, bool skip,
                const std::function<void(const nlohmann::json& object, const std::string& where,
                                         std::string_view line)>& row);

/// Returns the numbers at object[path[0]][path[1]]..., or in the list there, in order
/// and as `line` writes them: a parsed number may have been rounded. `line` is a JSON
/// object.
std::vector<std::string> json_number_texts(std::string_view line,
                                           const std::vector<std::string>& path);

/// Returns object[key], which must be a string. Throws an Error that names `where` and
/// the key when it is absent or has another type.
std::string json_string(const nlohmann::json& object, const std::string& key,
                        const std::string& where);

}  // namespace orrery::actors
