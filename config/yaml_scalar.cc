#include "config/yaml_scalar.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "config/config_keys.h"
#include "config/foreign_keys.h"
#include "config/yaml_document.h"
#include "core/ascii.h"
#include "core/error.h"
#include "proto/config.pb.h"

namespace orrery::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

/// "; verl's low_var_kl is k3", where another program's word is known.
std::string advice_of_value(const std::string& key, const std::string& word) {
  const std::string advice = foreign_value_advice(key, word);
  return advice.empty() ? "" : "; " + advice;
}

/// A range of proto/config.proto: "> 0", ">= 1", "[0, 1)".
void check_range(const FieldDescriptor& field, double value, const std::string& text,
                 const std::string& key, const std::string& where) {
  const std::string& range = field.options().GetExtension(proto::range);
  if (range.empty()) return;
  const auto bound = [&](size_t at) { return std::stod(range.substr(at)); };
  bool good = false;
  if (range.starts_with(">=")) {
    good = value >= bound(2);
  } else if (range.starts_with(">")) {
    good = value > bound(1);
  } else {
    const size_t comma = range.find(',');
    ORRERY_CHECK((range[0] == '[' || range[0] == '(') && comma != std::string::npos,
                 "range '{}' of {}", range, key);
    const double low = bound(1), high = bound(comma + 1);
    good = (range[0] == '[' ? value >= low : value > low) &&
           (range.back() == ']' ? value <= high : value < high);
  }
  if (!good) {
    fail_at(where, fmt::format("{} is {}: it must be {}{}{}", key, shown(text),
                               range[0] == '>' ? "" : "in ", range, advice_of_value(key, text)));
  }
}

[[noreturn]] void wrong_type(const Scalar& value, const std::string& expected,
                             const std::string& key, const std::string& where) {
  if (value.null) fail_at(where, fmt::format("{} has no value: expected {}", key, expected));
  fail_at(where, fmt::format("{} is {}'{}': expected {}{}", key, value.quoted ? "the text " : "",
                             shown(value.text), expected, value.quoted ? " without quotes" : ""));
}

template <class Int>
Int parse_int(const Scalar& value, const std::string& key, const std::string& where) {
  const char* end = value.text.data() + value.text.size();
  Int number = 0;
  const auto [stop, code] = std::from_chars(value.text.data(), end, number);
  const bool digits =
      !value.text.empty() && value.text.find_first_not_of("-0123456789") == std::string::npos;
  if (!value.quoted && !value.null && digits && code == std::errc::result_out_of_range) {
    fail_at(where, fmt::format("{} is {}: it must be at most {}", key, shown(value.text),
                               std::numeric_limits<Int>::max()));
  }
  if (value.quoted || value.null || code != std::errc() || stop != end) {
    wrong_type(value,
               std::numeric_limits<Int>::is_signed ? "a whole number"
                                                   : "a whole number that is not negative",
               key, where);
  }
  return number;
}

double parse_double(const Scalar& value, const std::string& key, const std::string& where) {
  const std::string& text = value.text;
  if (value.quoted || value.null || text.empty()) wrong_type(value, "a number", key, where);
  double number = 0;
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(begin, end, number);
  const bool yaml_special =
      text.find(".inf") != std::string::npos || text.find(".nan") != std::string::npos;
  if (code == std::errc() && stop != end && !yaml_special)
    wrong_type(value, "a number", key, where);
  if (code == std::errc::invalid_argument && !yaml_special)
    wrong_type(value, "a number", key, where);
  // Larger values would be infinite where they are used, as float32.
  if (yaml_special || code == std::errc::result_out_of_range || !std::isfinite(number) ||
      std::abs(number) > std::numeric_limits<float>::max()) {
    fail_at(where,
            fmt::format("{} is {}: expected a finite number that fits float32", key, shown(text)));
  }
  return number;
}

const google::protobuf::EnumValueDescriptor& parse_enum(
    const google::protobuf::EnumDescriptor& type, const Scalar& value, const std::string& key,
    const std::string& where) {
  std::string word = value.text;
  for (char& c : word) c = c == '_' ? '-' : c;
  if (!value.null) {
    for (int i = 0; i < type.value_count(); ++i) {
      if (word == enum_word(*type.value(i))) return *type.value(i);
    }
  }
  wrong_type({value.text, false, value.null},
             list_enum_words(type) + advice_of_value(key, to_lower(word)), key, where);
}

}  // namespace

std::optional<Scalar> scalar_of(const YAML::Node& node, const std::string& key,
                                const std::string& where) {
  if (node.IsNull()) return Scalar{"", false, true};
  if (!node.IsScalar()) return std::nullopt;
  const std::string& tag = node.Tag();
  if (!tag.empty() && tag != "?" && tag != "!")
    fail_at(where, fmt::format("{} has the YAML tag {}: remove it", key, tag));
  return Scalar{node.Scalar(), tag == "!", false};
}

std::string expected_scalar(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return list_enum_words(*field.enum_type());
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    default:
      return "a whole number";
  }
}

void set_scalar(Message& message, const FieldDescriptor& field, const Scalar& value,
                const std::string& key, const std::string& where) {
  const Reflection& reflection = *message.GetReflection();
  const bool list = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64: {
      const auto number = parse_int<int64_t>(value, key, where);
      check_range(field, number, value.text, key, where);
      list ? reflection.AddInt64(&message, &field, number)
           : reflection.SetInt64(&message, &field, number);
      return;
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      const auto number = parse_int<uint64_t>(value, key, where);
      check_range(field, number, value.text, key, where);
      list ? reflection.AddUInt64(&message, &field, number)
           : reflection.SetUInt64(&message, &field, number);
      return;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      const double number = parse_double(value, key, where);
      check_range(field, number, value.text, key, where);
      list ? reflection.AddDouble(&message, &field, number)
           : reflection.SetDouble(&message, &field, number);
      return;
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      // YAML's own three spellings of each; Python's is one.
      const bool yes = value.text == "true" || value.text == "True" || value.text == "TRUE";
      const bool no = value.text == "false" || value.text == "False" || value.text == "FALSE";
      if (value.quoted || value.null || (!yes && !no))
        wrong_type(value, "true or false", key, where);
      list ? reflection.AddBool(&message, &field, yes) : reflection.SetBool(&message, &field, yes);
      return;
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto& word = parse_enum(*field.enum_type(), value, key, where);
      list ? reflection.AddEnum(&message, &field, &word)
           : reflection.SetEnum(&message, &field, &word);
      return;
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      if (value.null && !list && !field.has_default_value()) {
        reflection.ClearField(&message, &field);
        return;
      }
      if (value.null) wrong_type(value, "text (\"\" for none)", key, where);
      if (value.text.size() > kMaxConfigText) {
        fail_at(where, fmt::format("{} has {} bytes: at most {} are allowed", key,
                                   value.text.size(), kMaxConfigText));
      }
      if (value.text.find('\0') != std::string::npos)
        fail_at(where, fmt::format("{} has a NUL character", key));
      list ? reflection.AddString(&message, &field, value.text)
           : reflection.SetString(&message, &field, value.text);
      return;
    }
    default:
      ORRERY_CHECK(false, "{} has a type that YAML keys cannot have", key);
  }
}

}  // namespace orrery::config
