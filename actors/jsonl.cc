#include "actors/jsonl.h"

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/log.h"

namespace orrery {

void read_jsonl(const std::vector<std::string>& files, bool skip,
                const std::function<void(const nlohmann::json&, const std::string&)>& row) {
  for (const std::string& path : files) {
    if (std::filesystem::is_directory(path)) fail("{} is a folder, not a JSONL file", path);
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("cannot open {}; check data.train_files and data.val_files", path);
    int64_t line_number = 0, good = 0, bad = 0;
    std::string first_problem;
    for (std::string line; std::getline(file, line);) {
      ++line_number;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      const std::string where = fmt::format("{}:{}", path, line_number);
      try {
        // The parser checks UTF-8 and its own nesting is iterative, so hostile text ends in an exception at
        // worst.
        const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (object.is_discarded()) fail("{}: not valid JSON", where);
        if (!object.is_object()) fail("{}: not a JSON object", where);
        row(object, where);
        ++good;
      } catch (const Error& error) {
        if (!skip) throw Error(std::string(error.what()) + "; mend the row or set data.on_error: skip");
        if (bad++ == 0) first_problem = error.what();
      }
    }
    if (file.bad()) fail("cannot read {} beyond line {}", path, line_number);
    if (bad > 0)
      spdlog::warn("{}: {} of {} rows skipped, the first because: {}", path, bad, good + bad, first_problem);
    if (good == 0) fail("{} holds no usable row", path);
  }
}

std::string json_string(const nlohmann::json& object, const std::string& key, const std::string& where) {
  const auto it = object.find(key);
  if (it == object.end()) fail("{}: no key \"{}\"", where, key);
  if (!it->is_string()) fail("{}: \"{}\" is {}, not a string", where, key, it->type_name());
  return it->get<std::string>();
}

}  // namespace orrery
