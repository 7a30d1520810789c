#include "core/json_read.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "core/ascii.h"
#include "core/error.h"

namespace orrery {
namespace {

constexpr size_t kExcerptBytes = 80;

std::string shortened(std::string text) {
  for (char& c : text) {
    if (is_control(c)) c = ' ';
  }
  if (text.size() > kExcerptBytes) {
    text.resize(kExcerptBytes);
    text += "...";
  }
  return text;
}

}  // namespace

std::string json_excerpt(const nlohmann::json& value) {
  // Nested values could be long or deep; their kind says enough.
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  return json_excerpt_nested(value);
}

std::string json_excerpt_nested(const nlohmann::json& value) {
  return shortened(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
}

nlohmann::json parse_json_strictly(std::string_view text, const std::string& where, int max_depth) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>> keys;  // one set per object that is open
  const auto callback = [&](int depth, Event event, nlohmann::json& value) {
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        if (depth >= max_depth) fail("{}: JSON nested deeper than {} levels", where, max_depth);
        keys.emplace_back();
        break;
      case Event::object_end:
      case Event::array_end:
        keys.pop_back();
        break;
      case Event::key:
        if (!keys.back().insert(value.get<std::string>()).second) {
          fail("{}: key {} is given twice in one object", where, json_excerpt(value));
        }
        break;
      case Event::value:
        break;
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), callback);
  } catch (const nlohmann::json::exception& error) {
    const std::string_view what = error.what();
    const size_t prefix = what.find("] ");
    fail(
        "{}: not valid JSON: {}", where,
        std::string(what.substr(prefix == std::string_view::npos ? 0 : prefix + 2)).substr(0, 200));
  }
}

std::optional<int64_t> json_integer(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    if (value.get<uint64_t>() > uint64_t{INT64_MAX}) return std::nullopt;
    return value.get<int64_t>();
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    const double d = value.get<double>();
    if (std::floor(d) == d && std::abs(d) < 0x1p53) return value.get<int64_t>();
  }
  return std::nullopt;
}

JsonObject::JsonObject(const nlohmann::json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object.is_object())
    fail("{}: expected a JSON object, found {}", where_, json_excerpt(object));
}

const nlohmann::json* JsonObject::find(const std::string& key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void JsonObject::missing(const std::string& key) const {
  fail("{}: key \"{}\" is missing", where_, key);
}

void JsonObject::reject(const std::string& key, const std::string& expected) const {
  const auto it = object_.find(key);
  fail("{}: {} is {}; {}", where_, key, it == object_.end() ? "absent" : json_excerpt(*it),
       expected);
}

int64_t JsonObject::integer(const std::string& key, int64_t low, int64_t high,
                            std::optional<int64_t> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    missing(key);
  }
  const auto result = json_integer(*value);
  if (!result || *result < low || *result > high)
    reject(key, fmt::format("an integer from {} to {} is needed", low, high));
  return *result;
}

double JsonObject::number(const std::string& key, double low, double high,
                          std::optional<double> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    missing(key);
  }
  const double result = value->is_number() ? value->get<double>() : std::nan("");
  if (!(result >= low && result <= high))
    reject(key, fmt::format("a number from {} to {} is needed", low, high));
  return result;
}

bool JsonObject::boolean(const std::string& key, std::optional<bool> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    missing(key);
  }
  if (!value->is_boolean()) reject(key, "true or false is needed");
  return value->get<bool>();
}

std::string JsonObject::text(const std::string& key, std::optional<std::string> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    missing(key);
  }
  if (!value->is_string()) reject(key, "a string is needed");
  return value->get<std::string>();
}

void JsonObject::only_keys(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      fail("{}: key {} is not supported", where_, json_excerpt(nlohmann::json(key)));
    }
  }
}

}  // namespace orrery
