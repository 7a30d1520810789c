// Reads tokenizer.json in one pass. The vocabulary and the merges, which are nearly all
// of the file, go straight into their tables; the small rest becomes a JSON value. The
// file is treated as hostile: wrong types, negative, huge or repeated ids, repeated
// tokens, deep nesting and malformed JSON each give one Error naming the file and the
// key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_vocabulary.h"

namespace orrery::text {

/// One merge rule: two texts side by side in TokenizerJson::merge_bytes.
struct MergeText {
  size_t begin;
  uint32_t left_length;
  uint32_t right_length;
};

struct TokenizerJson {
  /// The file's object. rest["model"] lacks "vocab" and "merges" if they were tables.
  nlohmann::json rest;
  Vocabulary vocabulary;
  std::string merge_bytes;
  std::vector<MergeText> merges;  ///< the best rank first

  std::string_view left(const MergeText& m) const {
    return {merge_bytes.data() + m.begin, m.left_length};
  }
  std::string_view right(const MergeText& m) const {
    return {merge_bytes.data() + m.begin + m.left_length, m.right_length};
  }
};

TokenizerJson read_tokenizer_json(const std::filesystem::path& file);

/// Reads a small JSON file whose root is an object. Throws Error naming the file.
nlohmann::json read_json_object(const std::filesystem::path& file);

/// Parses such a file's text; `file` names it in errors.
nlohmann::json parse_json_object(const std::string& text, const std::string& file);

/// A JSON value with its place in the file, for checked access: every wrong type is an
/// Error such as "tokenizer.json: pre_tokenizer.pattern must be an object, not a
/// number".
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string file, std::string path)
      : value_(&value), file_(std::move(file)), path_(std::move(path)) {}

  bool is_null() const { return value_->is_null(); }
  bool is_string() const { return value_->is_string(); }
  bool is_object() const { return value_->is_object(); }
  bool is_array() const { return value_->is_array(); }
  bool is_bool() const { return value_->is_boolean(); }

  /// A member of an object; a null node where it is absent.
  JsonNode member(const char* key) const;
  bool has(const char* key) const { return value_->is_object() && value_->contains(key); }
  /// The elements of an array.
  std::vector<JsonNode> items() const;
  /// The members of an object.
  std::vector<std::pair<std::string, JsonNode>> members() const;

  const std::string& as_string() const;
  bool as_bool() const;
  double as_number() const;
  /// A token id: an integer from 0 to Vocabulary::kMaxId - 1.
  int32_t as_id() const;

  std::string string_or(const char* key, const std::string& fallback) const;
  bool bool_or(const char* key, bool fallback) const;
  /// The "type" of this object. Throws Error when it is absent.
  std::string type() const;

  /// The value as JSON text.
  std::string text() const { return value_->dump(); }

  /// Throws Error "file: path: message".
  [[noreturn]] void fail_here(const std::string& message) const;
  /// "file: path", for errors raised elsewhere.
  std::string place() const { return path_.empty() ? file_ : file_ + ": " + path_; }

 private:
  [[noreturn]] void wrong_type(const char* expected) const;

  const nlohmann::json* value_;
  std::string file_;
  std::string path_;
};

}  // namespace orrery::text
