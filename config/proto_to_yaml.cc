#include <charconv>
#include <map>

#include "config/config_keys.h"
#include "config/yaml_to_proto.h"
#include "core/ascii.h"
#include "core/error.h"

namespace orrery::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

/// Writes a double-quoted YAML scalar, with JSON's escapes, and \x for other control
/// characters.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (is_control(c) || c == kDelete) {
          out += fmt::format("\\x{:02x}", byte_of(c));
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

/// The shortest decimal that reads back as the same double.
std::string shortest(double value) {
  char text[32];
  const auto result = std::to_chars(text, text + sizeof text, value);
  return {text, result.ptr};
}

/// Writes one value of a list, or with `index` < 0 the value of a key that is no list.
std::string value_text(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool list = index >= 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
      return std::to_string(list ? r.GetRepeatedInt64(message, &field, index)
                                 : r.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return std::to_string(list ? r.GetRepeatedUInt64(message, &field, index)
                                 : r.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return shortest(list ? r.GetRepeatedDouble(message, &field, index)
                           : r.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return (list ? r.GetRepeatedBool(message, &field, index) : r.GetBool(message, &field))
                 ? "true"
                 : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return enum_word(list ? *r.GetRepeatedEnum(message, &field, index)
                            : *r.GetEnum(message, &field));
    case FieldDescriptor::CPPTYPE_STRING:
      return quoted(list ? r.GetRepeatedString(message, &field, index)
                         : r.GetString(message, &field));
    default:
      ORRERY_CHECK(false, "{} has a type that YAML keys cannot have", field.full_name());
  }
  return "";
}

/// Writes a mapping sorted by name, as the message keeps no order. The values are JSON,
/// which is YAML, too.
void write_map(const Message& message, const FieldDescriptor& field, std::string& out) {
  const Reflection& r = *message.GetReflection();
  std::map<std::string, std::string> entries;
  for (int i = 0; i < r.FieldSize(message, &field); ++i) {
    const Message& entry = r.GetRepeatedMessage(message, &field, i);
    const auto part = [&](const FieldDescriptor* which) {
      return entry.GetReflection()->GetString(entry, which);
    };
    entries[part(field.message_type()->map_key())] = part(field.message_type()->map_value());
  }
  // It is on one line, because config_values() expects one line per key.
  std::string text;
  for (const auto& [name, json] : entries)
    text += (text.empty() ? "" : ", ") + quoted(name) + ": " + json;
  out += " {" + text + "}\n";
}

void write_section(const Message& message, const std::string& indent, std::string& out) {
  const Reflection& r = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    out += indent + field.name() + ":";
    if (field.is_map()) {
      write_map(message, field, out);
      continue;
    }
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      out += "\n";
      write_section(r.GetMessage(message, &field), indent + "  ", out);
      continue;
    }
    if (field.is_repeated()) {
      out += " [";
      for (int item = 0; item < r.FieldSize(message, &field); ++item) {
        out += (item > 0 ? ", " : "") + value_text(message, field, item);
      }
      out += "]\n";
      continue;
    }
    const bool absent = field.cpp_type() == FieldDescriptor::CPPTYPE_STRING &&
                        !field.has_default_value() && !r.HasField(message, &field);
    out += " " + (absent ? "null" : value_text(message, field, -1)) + "\n";
  }
}

void set_default(Message& message, const FieldDescriptor& field) {
  const Reflection& r = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
      return r.SetInt64(&message, &field, field.default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT64:
      return r.SetUInt64(&message, &field, field.default_value_uint64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return r.SetDouble(&message, &field, field.default_value_double());
    case FieldDescriptor::CPPTYPE_BOOL:
      return r.SetBool(&message, &field, field.default_value_bool());
    case FieldDescriptor::CPPTYPE_ENUM:
      return r.SetEnum(&message, &field, field.default_value_enum());
    case FieldDescriptor::CPPTYPE_STRING:
      if (field.has_default_value()) r.SetString(&message, &field, field.default_value_string());
      return;
    default:
      ORRERY_CHECK(false, "{} has a type that YAML keys cannot have", field.full_name());
  }
}

}  // namespace

void fill_defaults(Message& message) {
  const Reflection& r = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    if (field.is_map()) continue;
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      fill_defaults(*r.MutableMessage(&message, &field));
    } else if (!field.is_repeated() && !r.HasField(message, &field)) {
      set_default(message, field);
    }
  }
}

std::string proto_to_yaml(const Message& message) {
  std::string out;
  write_section(message, "", out);
  return out;
}

}  // namespace orrery::config
