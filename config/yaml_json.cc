#include "config/yaml_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/ascii.h"
#include "core/error.h"

namespace orrery::config {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxJsonBytes = 1 << 16;
constexpr int kMaxDepth = 32;

template <class Number>
bool parses(const std::string& text, Number& out) {
  const char *begin = text.data() + (text[0] == '+' ? 1 : 0), *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, out);
  return error == std::errc() && stop == end;
}

Json word(const std::string& text, const std::string& key, const std::string& where) {
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const bool starts_number =
      !text.empty() &&
      (is_digit(text[0]) || ((text[0] == '-' || text[0] == '+' || text[0] == '.') &&
                             text.size() > 1 && (is_digit(text[1]) || text[1] == '.')));
  if (!starts_number) return text;
  int64_t whole = 0;
  if (parses(text, whole)) return whole;
  if (text.find_first_not_of("+-0123456789") == std::string::npos &&
      text.find_first_of("+-", 1) == std::string::npos)
    fail_usage("{}: {} is {}: a whole number of at most 64 bits, or a text in quotes", where, key,
               text.substr(0, 60));
  double number = 0;
  if (parses(text, number) && std::isfinite(number)) return number;
  return text;
}

Json value(const YAML::Node& node, const std::string& key, const std::string& where, int depth) {
  if (depth > kMaxDepth) fail_usage("{}: {} is nested too deeply", where, key);
  if (!node.IsDefined() || node.IsNull()) return nullptr;
  const std::string& tag = node.Tag();
  if (!tag.empty() && tag != "?" && tag != "!")
    fail_usage("{}: {} has the YAML tag {}: remove it", where, key, tag);
  if (node.IsScalar()) return tag == "!" ? Json(node.Scalar()) : word(node.Scalar(), key, where);
  Json out = node.IsSequence() ? Json::array() : Json::object();
  for (const auto& item : node) {
    if (node.IsSequence()) {
      out.push_back(value(item, key, where, depth + 1));
    } else {
      if (!item.first.IsScalar()) fail_usage("{}: a name in {} must be a plain word", where, key);
      out[item.first.Scalar()] = value(item.second, key, where, depth + 1);
    }
  }
  return out;
}

}  // namespace

std::string yaml_as_json(const YAML::Node& node, const std::string& key, const std::string& where) {
  const Json json = value(node, key, where, 0);
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kMaxJsonBytes)
    fail_usage("{}: {} has {} bytes: at most {} are allowed", where, key, text.size(),
               kMaxJsonBytes);
  return text;
}

}  // namespace orrery::config
