// The rows of data.train_files and data.val_files, for environments that read them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "actors/environment.h"
#include "actors/jsonl.h"
#include "core/error.h"

namespace orrery::actors {

/// Keeps a Row for each line of the files. Immutable.
template <class Row>
class RowFiles {
 public:
  /// Reads the files. parse(object, "file:line", line) makes a Row; a line for which it
  /// throws an Error is handled as data.on_error says (read_jsonl). Throws a usage
  /// Error, which calls the environment `env`, when neither key names a file.
  template <class Parse>
  RowFiles(const proto::DataSection& data, const char* env, const Parse& parse) {
    const bool skip = data.on_error() == proto::DataSection::SKIP;
    const auto read = [&](const auto& files, std::vector<Row>& rows) {
      read_jsonl({files.begin(), files.end()}, skip,
                 [&](const nlohmann::json& object, const std::string& where,
                     std::string_view line) { rows.push_back(parse(object, where, line)); });
    };
    read(data.train_files(), train_);
    read(data.val_files(), val_);
    if (train_.empty() && val_.empty()) {
      fail_usage("data.env is {} but neither data.train_files nor data.val_files is set", env);
    }
  }

  const std::vector<Row>& of(Split split) const { return split == Split::kTrain ? train_ : val_; }

 private:
  std::vector<Row> train_, val_;
};

}  // namespace orrery::actors
