// Strict reading of JSON from outside. Errors are one line that names the source and
// the key; repeated keys and deep nesting are rejected; integers are checked against a
// range. Used for config.json, safetensors headers and manifests.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace orrery {

/// Parses a JSON text. `where` names it in errors. Throws Error for a syntax error, a
/// key given twice in one object and nesting deeper than max_depth (the parser itself
/// does not recurse, so depth never reaches the stack).
nlohmann::json parse_json_strictly(std::string_view text, const std::string& where,
                                   int max_depth = 32);

/// The fields of one object, read with defaults. Holds references: the object must
/// outlive it.
class JsonObject {
 public:
  /// Error when `object` is not an object.
  JsonObject(const nlohmann::json& object, std::string where);

  /// The value, or null when the key is absent or its value is null.
  const nlohmann::json* find(const std::string& key) const;
  bool has_key(const std::string& key) const { return object_.contains(key); }

  /// An integer in [low, high]; a float without fraction counts as one. Error when
  /// absent and no fallback is given.
  int64_t integer(const std::string& key, int64_t low, int64_t high,
                  std::optional<int64_t> fallback = {}) const;
  /// A finite number in [low, high].
  double number(const std::string& key, double low, double high,
                std::optional<double> fallback = {}) const;
  bool boolean(const std::string& key, std::optional<bool> fallback = {}) const;
  std::string text(const std::string& key, std::optional<std::string> fallback = {}) const;
  /// Error naming the key unless it is one of `known`.
  void only_keys(std::initializer_list<std::string_view> known) const;

  const std::string& where() const { return where_; }
  /// Throws Error "<where>: <key> is <value>; <expected>".
  [[noreturn]] void reject(const std::string& key, const std::string& expected) const;

 private:
  [[noreturn]] void missing(const std::string& key) const;
  const nlohmann::json& object_;
  std::string where_;
};

/// The integer a JSON number stands for, or nothing (not a number, a fraction, out of
/// int64).
std::optional<int64_t> json_integer(const nlohmann::json& value);

/// A value as short text for an error message. A list or an object is named by its
/// kind.
std::string json_excerpt(const nlohmann::json& value);
/// As json_excerpt, but shows the beginning of what a list or an object holds. Only for
/// values of bounded depth, such as those of parse_json_strictly.
std::string json_excerpt_nested(const nlohmann::json& value);

}  // namespace orrery
