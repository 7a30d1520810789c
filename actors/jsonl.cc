#include "actors/jsonl.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <utility>

#include "actors/data_format.h"
#include "core/error.h"
#include "core/json_duplicates.h"
#include "core/log.h"

namespace orrery::actors {
namespace {

/// Collects the texts of the numbers at one place of an object, or in the list there.
class NumberTexts final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit NumberTexts(const std::vector<std::string>& path) : path_(path), keys_(path.size()) {}

  std::vector<std::string> texts;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t value) override { return number(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return number(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return number(text); }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(kObject); }
  bool start_array(std::size_t) override { return open(kArray); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

  bool key(string_t& name) override {
    const size_t depth = inside_.size();
    if (depth > path_.size() || inside_.find(kArray) != std::string::npos) return true;
    keys_[depth - 1] = name;
    for (size_t i = depth; i < keys_.size(); ++i) keys_[i].clear();
    // Of equal keys the last one counts, as for the parsed object.
    if (std::ranges::equal(std::span(keys_).first(depth), std::span(path_).first(depth)))
      texts.clear();
    return true;
  }

 private:
  static constexpr char kObject = 'o', kArray = 'a';

  bool number(const std::string& text) {
    const size_t lists = inside_.size() - std::min(inside_.size(), path_.size());
    if (lists <= 1 && inside_.find(kArray) >= path_.size() && inside_.size() >= path_.size() &&
        keys_ == path_ && (lists == 0 || inside_.back() == kArray)) {
      texts.push_back(text);
    }
    return true;
  }
  bool open(char kind) {
    inside_ += kind;
    return true;
  }
  bool close() {
    inside_.pop_back();
    return true;
  }

  const std::vector<std::string>& path_;
  std::vector<std::string> keys_;  // keys of the objects around, as deep as the path
  std::string inside_;             // kinds of the objects and lists around
};

}  // namespace

void read_jsonl(
    const std::vector<std::string>& files, bool skip,
    const std::function<void(const nlohmann::json&, const std::string&, std::string_view)>& row) {
  for (const std::string& path : files) {
    if (std::filesystem::is_directory(path)) fail_usage("{} is a folder, not a JSONL file", path);
    std::ifstream file(path, std::ios::binary);
    if (!file) fail_usage("cannot open {}: {}; check the path", path, std::strerror(errno));
    int64_t line_number = 0, good = 0, bad = 0;
    bool known = false;
    std::string first_problem;
    for (std::string line; std::getline(file, line);) {
      ++line_number;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      if (!std::exchange(known, true))
        refuse_other_rows(line, file.good() && file.peek() != EOF, path);
      const std::string where = fmt::format("{}:{}", path, line_number);
      try {
        // The parser checks UTF-8 and its own nesting is iterative, so hostile text
        // ends in an exception at worst.
        const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (object.is_discarded()) fail("{}: not valid JSON", where);
        if (!object.is_object()) fail("{}: not a JSON object", where);
        refuse_duplicate_keys(line, where);
        row(object, where, line);
        ++good;
      } catch (const Error& error) {
        if (error.exit_code() == kExitUsage) throw;
        if (!skip) fail_usage("{}; mend the row or set data.on_error: skip", error.what());
        if (bad++ == 0) first_problem = error.what();
      }
    }
    if (file.bad()) fail("cannot read {} beyond line {}", path, line_number);
    if (bad > 0)
      spdlog::warn("{}: {} of {} rows skipped, the first because: {}", path, bad, good + bad,
                   first_problem);
    if (good == 0 && bad > 0)
      fail_usage("{} holds no usable row, the first because: {}", path, first_problem);
    if (good == 0)
      fail_usage("{} {}", path,
                 line_number == 0 ? "holds no usable row: it is empty"
                                  : "holds no usable row: its lines are blank");
  }
}

std::vector<std::string> json_number_texts(std::string_view line,
                                           const std::vector<std::string>& path) {
  NumberTexts numbers(path);
  nlohmann::json::sax_parse(line, &numbers);
  return std::move(numbers.texts);
}

std::string json_string(const nlohmann::json& object, const std::string& key,
                        const std::string& where) {
  const auto it = object.find(key);
  if (it == object.end()) fail("{}: no key \"{}\"", where, key);
  if (!it->is_string()) fail("{}: \"{}\" is {}, not a string", where, key, it->type_name());
  return it->get<std::string>();
}

}  // namespace orrery::actors
