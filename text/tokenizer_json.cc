#include "text/tokenizer_json.h"

#include <algorithm>

#include "core/error.h"
#include "core/lfs_pointer.h"

namespace orrery::text {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;  // for values outside the tables; real files need 6

/// Receives nlohmann's parse events. The place of a value tells the tables from the
/// rest: they are root -> model -> vocab and root -> model -> merges.
class TokenizerJsonReader {
 public:
  TokenizerJsonReader(std::string file, TokenizerJson& out) : file_(std::move(file)), out_(out) {}

  bool null() { return leaf(json()); }
  bool boolean(bool value) { return leaf(value); }
  bool number_float(double value, const std::string& /*text*/) { return leaf(value); }
  bool binary(json::binary_t& /*value*/) { return true; }  // JSON text has none

  bool number_integer(int64_t value) {
    if (place_ == Place::kVocab) return vocab_id(value);
    return leaf(value);
  }
  bool number_unsigned(uint64_t value) {
    if (place_ == Place::kVocab) return vocab_id(std::min(value, uint64_t{Vocabulary::kMaxId}));
    return leaf(value);
  }

  bool string(std::string& value) {
    switch (place_) {
      case Place::kMerges:
        return merge_string(value);
      case Place::kMergePair:
        return merge_part(value);
      case Place::kVocab:
        wrong_vocab_value();
      default:
        return leaf(std::move(value));
    }
  }

  bool start_object(size_t /*count*/) {
    if (place_ == Place::kRest && at_model_key("vocab")) return enter_table(Place::kVocab, "vocab");
    check_rest("an object");
    push(json::object());
    return true;
  }
  bool start_array(size_t /*count*/) {
    if (place_ == Place::kMerges) {
      place_ = Place::kMergePair;
      pair_parts_ = 0;
      return true;
    }
    if (place_ == Place::kRest && at_model_key("merges"))
      return enter_table(Place::kMerges, "merges");
    check_rest("an array");
    push(json::array());
    return true;
  }
  bool key(std::string& name) {
    (place_ == Place::kVocab ? token_ : key_) = name;
    return true;
  }
  bool end_object() {
    if (place_ == Place::kVocab) {
      place_ = Place::kRest;
    } else {
      stack_.pop_back();
    }
    return true;
  }
  bool end_array() {
    switch (place_) {
      case Place::kMergePair:
        if (pair_parts_ != 2)
          bad_merge("has " + std::to_string(pair_parts_) + " parts instead of 2");
        place_ = Place::kMerges;
        break;
      case Place::kMerges:
        place_ = Place::kRest;
        break;
      default:
        stack_.pop_back();
    }
    return true;
  }

  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) {
    std::string reason = error.what();
    const size_t cut = reason.find("; last read");
    if (cut != std::string::npos) reason.resize(cut);
    fail("{}: not valid JSON near byte {}: {}; is the file damaged?", file_, position,
         reason.substr(0, 160));
  }

 private:
  enum class Place { kRest, kVocab, kMerges, kMergePair };

  bool at_model_key(std::string_view name) const {
    return stack_.size() == 2 && root_key_ == "model" && key_ == name && stack_.back()->is_object();
  }

  bool enter_table(Place place, const char* name) {
    bool& seen = place == Place::kVocab ? vocab_seen_ : merges_seen_;
    if (seen) fail("{}: model.{} appears twice", file_, name);
    seen = true;
    place_ = place;
    return true;
  }

  bool leaf(json value) {
    check_rest("such a value");
    put(std::move(value));
    return true;
  }

  /// Throws Error inside a table, where only strings, numbers and pairs may stand.
  void check_rest(const char* what) const {
    if (place_ == Place::kVocab) wrong_vocab_value();
    if (place_ != Place::kRest) bad_merge(std::string("may not be or hold ") + what);
  }

  json* put(json value) {
    if (stack_.empty()) {
      if (!value.is_object()) fail("{}: the root must be a JSON object", file_);
      out_.rest = std::move(value);
      return &out_.rest;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    if (parent.contains(key_))
      fail("{}: key \"{}\" appears twice in one object", file_, key_.substr(0, 80));
    return &(parent[key_] = std::move(value));
  }

  void push(json value) {
    if (stack_.size() == 1) root_key_ = key_;
    if (stack_.size() >= kMaxDepth) fail("{}: nested more than {} levels deep", file_, kMaxDepth);
    // The pointers stay valid: nothing is added to a parent while a child is open.
    stack_.push_back(put(std::move(value)));
  }

  bool vocab_id(int64_t value) {
    if (value < 0 || value >= Vocabulary::kMaxId) {
      fail("{}: model.vocab: the id of \"{}\" is not an integer from 0 to {}", file_,
           token_.substr(0, 80), Vocabulary::kMaxId - 1);
    }
    const auto id = static_cast<int32_t>(value);
    switch (out_.vocabulary.add(token_, id)) {
      case Vocabulary::Added::kNew:
        return true;
      case Vocabulary::Added::kTokenTaken:
        fail("{}: model.vocab: token \"{}\" appears twice", file_, token_.substr(0, 80));
      case Vocabulary::Added::kIdTaken:
        fail("{}: model.vocab: tokens \"{}\" and \"{}\" have the same id {}", file_,
             out_.vocabulary.token(id).substr(0, 80), token_.substr(0, 80), id);
    }
    return true;
  }
  [[noreturn]] void wrong_vocab_value() const {
    fail("{}: model.vocab: the id of \"{}\" must be an integer", file_, token_.substr(0, 80));
  }

  bool merge_string(const std::string& text) {
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      bad_merge("is not two tokens with one space between: \"" + text.substr(0, 80) + "\"");
    }
    pair_parts_ = 0;
    merge_part(std::string_view(text).substr(0, space));
    return merge_part(std::string_view(text).substr(space + 1));
  }
  bool merge_part(std::string_view text) {
    const auto length = static_cast<uint32_t>(text.size());
    if (pair_parts_ == 0) {
      out_.merges.push_back({out_.merge_bytes.size(), length, 0});
    } else if (pair_parts_ == 1) {
      out_.merges.back().right_length = length;
    } else {
      bad_merge("has more than 2 parts");
    }
    out_.merge_bytes += text;
    ++pair_parts_;
    return true;
  }
  [[noreturn]] void bad_merge(const std::string& problem) const {
    fail("{}: model.merges: an entry near number {} {}", file_, out_.merges.size(), problem);
  }

  std::string file_;
  TokenizerJson& out_;
  Place place_ = Place::kRest;
  std::vector<json*> stack_;
  std::string key_, root_key_, token_;
  int pair_parts_ = 0;
  bool vocab_seen_ = false, merges_seen_ = false;
};

const char* type_name(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "absent or null";
    case json::value_t::object:
      return "an object";
    case json::value_t::array:
      return "an array";
    case json::value_t::string:
      return "a string";
    case json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

}  // namespace

namespace {

TokenizerJson parse_tokenizer_json(const std::string& text, const std::string& file) {
  TokenizerJson out;
  TokenizerJsonReader reader(file, out);
  json::sax_parse(text.data(), text.data() + text.size(), &reader);
  return out;
}

}  // namespace

TokenizerJson read_tokenizer_json(const std::filesystem::path& file) {
  return parse_tokenizer_json(read_model_file(file), file.string());
}

json parse_json_object(const std::string& text, const std::string& file) {
  return std::move(parse_tokenizer_json(text, file).rest);
}

json read_json_object(const std::filesystem::path& file) {
  // The reader of tokenizer.json has the limits and the errors that are wanted here. It
  // would take "vocab" and "merges" inside a "model" for tables; no such file has them.
  TokenizerJson parsed = read_tokenizer_json(file);
  return std::move(parsed.rest);
}

JsonNode JsonNode::member(const char* key) const {
  static const json kNull;
  if (!value_->is_object()) wrong_type("an object");
  const auto found = value_->find(key);
  return JsonNode(found == value_->end() ? kNull : *found, file_,
                  path_.empty() ? key : path_ + "." + key);
}

std::vector<JsonNode> JsonNode::items() const {
  if (!value_->is_array()) wrong_type("an array");
  std::vector<JsonNode> nodes;
  for (size_t i = 0; i < value_->size(); ++i) {
    nodes.emplace_back((*value_)[i], file_, path_ + "[" + std::to_string(i) + "]");
  }
  return nodes;
}

std::vector<std::pair<std::string, JsonNode>> JsonNode::members() const {
  if (!value_->is_object()) wrong_type("an object");
  std::vector<std::pair<std::string, JsonNode>> nodes;
  for (const auto& [key, value] : value_->items()) {
    const std::string name = key.substr(0, 40);
    nodes.emplace_back(key, JsonNode(value, file_, path_.empty() ? name : path_ + "." + name));
  }
  return nodes;
}

const std::string& JsonNode::as_string() const {
  if (!value_->is_string()) wrong_type("a string");
  return value_->get_ref<const std::string&>();
}

bool JsonNode::as_bool() const {
  if (!value_->is_boolean()) wrong_type("true or false");
  return value_->get<bool>();
}

double JsonNode::as_number() const {
  if (!value_->is_number()) wrong_type("a number");
  return value_->get<double>();
}

int32_t JsonNode::as_id() const {
  if (!value_->is_number_integer()) wrong_type("a token id (an integer)");
  const bool fits =
      value_->is_number_unsigned() ? value_->get<uint64_t>() < uint64_t{Vocabulary::kMaxId} : false;
  if (!fits)
    fail_here(fmt::format("{} is not an id from 0 to {}", value_->dump(), Vocabulary::kMaxId - 1));
  return value_->get<int32_t>();
}

std::string JsonNode::string_or(const char* key, const std::string& fallback) const {
  const JsonNode node = member(key);
  return node.is_null() ? fallback : node.as_string();
}

bool JsonNode::bool_or(const char* key, bool fallback) const {
  const JsonNode node = member(key);
  return node.is_null() ? fallback : node.as_bool();
}

std::string JsonNode::type() const { return member("type").as_string(); }

void JsonNode::fail_here(const std::string& message) const { fail("{}: {}", place(), message); }

void JsonNode::wrong_type(const char* expected) const {
  fail_here(fmt::format("must be {}, not {}", expected, type_name(*value_)));
}

}  // namespace orrery::text
