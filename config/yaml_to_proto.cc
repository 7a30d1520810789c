#include "config/yaml_to_proto.h"

#include <utf8proc.h>
#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <vector>

#include "config/config_keys.h"
#include "config/foreign_keys.h"
#include "config/yaml_json.h"
#include "core/error.h"
#include "proto/config.pb.h"

namespace orrery::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kMaxFileBytes = 1 << 18;
constexpr size_t kMaxListItems = 10'000;
constexpr size_t kMaxEntryName = 200;

/// A scalar as it was written.
struct Scalar {
  std::string text;
  bool quoted = false;
  bool null = false;
};

/// The text for a message: one short line.
std::string shown(const std::string& text) {
  constexpr size_t kLongest = 60;
  std::string out;
  for (const char c : text.substr(0, kLongest)) out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  // Not in the middle of a UTF-8 character.
  if (text.size() > kLongest) {
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80) out.pop_back();
    if (!out.empty() && (static_cast<unsigned char>(out.back()) & 0x80) != 0) out.pop_back();
    out += "...";
  }
  return out;
}

[[noreturn]] void fail_at(const std::string& where, const std::string& message) {
  fail_usage("{}: {}", where, message);
}

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
  for (char& c : word) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  wrong_type({value.text, false, value.null}, list_enum_words(type) + advice_of_value(key, word),
             key, where);
}

/// Sets a key, or appends to a list, from one scalar.
void set_scalar(Message& message, const FieldDescriptor& field, const Scalar& value,
                const std::string& key, const std::string& where) {
  const Reflection& reflection = *message.GetReflection();
  const bool list = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64: {
      const auto number = parse_int<int64_t>(value, key, where);
      check_range(field, static_cast<double>(number), value.text, key, where);
      list ? reflection.AddInt64(&message, &field, number)
           : reflection.SetInt64(&message, &field, number);
      return;
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      const auto number = parse_int<uint64_t>(value, key, where);
      check_range(field, static_cast<double>(number), value.text, key, where);
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

std::string place(const std::string& name, const YAML::Mark& mark) {
  return mark.line < 0 || name == ConfigReader::kCommandLine
             ? name
             : fmt::format("{}:{}", name, mark.line + 1);
}

std::optional<Scalar> scalar_of(const YAML::Node& node, const std::string& key,
                                const std::string& where) {
  if (node.IsNull()) return Scalar{"", false, true};
  if (!node.IsScalar()) return std::nullopt;
  const std::string& tag = node.Tag();
  if (!tag.empty() && tag != "?" && tag != "!")
    fail_at(where, fmt::format("{} has the YAML tag {}: remove it", key, tag));
  return Scalar{node.Scalar(), tag == "!", false};
}

/// `expected` is what the schema wants where a list or a section stands.
[[noreturn]] void wrong_shape(const YAML::Node& node, const std::string& expected,
                              const std::string& key, const std::string& where) {
  const char* given = node.IsSequence() ? "a list" : node.IsMap() ? "a section" : "a single value";
  fail_at(where, fmt::format("{} is {}: expected {}", key, given, expected));
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

void read_list(Message& message, const FieldDescriptor& field, const YAML::Node& node,
               const std::string& key, const std::string& where) {
  if (node.IsScalar()) {  // one value where a list of one is meant
    const auto value = scalar_of(node, key, where);
    message.GetReflection()->ClearField(&message, &field);
    set_scalar(message, field, *value, key, where);
    return;
  }
  if (node.IsNull())
    fail_at(where,
            fmt::format("{} has no value: expected a list such as [a, b], or [] for none", key));
  if (!node.IsSequence())
    wrong_shape(node, fmt::format("a list of {}, such as [a, b]", expected_scalar(field)), key,
                where);
  if (node.size() > kMaxListItems) {
    fail_at(where, fmt::format("{} has {} items: at most {} are allowed", key, node.size(),
                               kMaxListItems));
  }
  message.GetReflection()->ClearField(&message, &field);
  size_t index = 0;
  for (const YAML::Node& item : node) {
    const std::string item_key = fmt::format("{}[{}]", key, index++);
    const auto value = scalar_of(item, item_key, where);
    if (!value) wrong_shape(item, expected_scalar(field), item_key, where);
    set_scalar(message, field, *value, item_key, where);
  }
}

/// Sets one entry of a mapping, whose value is JSON.
void set_entry(Message& message, const FieldDescriptor& field, const std::string& name,
               const std::string& json) {
  const Reflection& reflection = *message.GetReflection();
  const FieldDescriptor *key = field.message_type()->map_key(),
                        *value = field.message_type()->map_value();
  Message* entry = nullptr;
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    Message* other = reflection.MutableRepeatedMessage(&message, &field, i);
    if (other->GetReflection()->GetString(*other, key) == name) entry = other;
  }
  if (entry == nullptr) {
    entry = reflection.AddMessage(&message, &field);
    entry->GetReflection()->SetString(entry, key, name);
  }
  entry->GetReflection()->SetString(entry, value, json);
}

void check_entry_name(const std::string& name, const std::string& key, const std::string& where) {
  if (name.empty() || name.size() > kMaxEntryName)
    fail_at(where, fmt::format("{} has a name of {} bytes", key, name.size()));
}

/// All of a mapping, in place of what was there.
void read_map(Message& message, const FieldDescriptor& field, const YAML::Node& node,
              const std::string& key, const std::string& where) {
  message.GetReflection()->ClearField(&message, &field);
  if (node.IsNull()) return;
  if (!node.IsMap())
    wrong_shape(node, "names with values, such as {enable_thinking: false}", key, where);
  if (node.size() > kMaxListItems)
    fail_at(where, fmt::format("{} has {} names: at most {} are allowed", key, node.size(),
                               kMaxListItems));
  std::set<std::string> names;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar())
      fail_at(where, fmt::format("a name in {} must be a plain word", key));
    const std::string& name = entry.first.Scalar();
    check_entry_name(name, key, where);
    if (!names.insert(name).second)
      fail_at(where, fmt::format("duplicate key '{}': remove one", join_key(key, shown(name))));
    set_entry(message, field, name, yaml_as_json(entry.second, join_key(key, shown(name)), where));
  }
}

/// `written`: the whole dotted name, of which `key` in `section` is unknown.
[[noreturn]] void unknown_key(const Descriptor& schema, const std::string& section,
                              const std::string& key, const Descriptor& section_schema,
                              const std::string& where, const std::string& written) {
  const std::string name = join_key(section, key);
  for (const std::string& known : all_keys(schema)) {
    const size_t dot = key.find('.');
    if (known != name || dot == std::string::npos) continue;
    fail_at(where, fmt::format("unknown key '{}'; in a file sections are nested: "
                               "write '{}:' and '{}:' indented below it",
                               name, key.substr(0, dot), key.substr(dot + 1)));
  }
  const std::string meant = suggest_key(schema, section, key);
  const bool same_word = meant == key || meant.ends_with("." + key);
  std::string theirs = foreign_key_advice(written, /*exact=*/true);
  if (theirs.empty() && !same_word) theirs = foreign_key_advice(written, /*exact=*/false);
  if (!theirs.empty()) fail_at(where, fmt::format("unknown key '{}'; {}", shown(written), theirs));
  if (!meant.empty())
    fail_at(where, fmt::format("unknown key '{}'; did you mean '{}'?", shown(name), meant));
  fail_at(where, fmt::format("unknown key '{}'; {} has {}", shown(name),
                             section.empty() ? "a config" : "section '" + section + "'",
                             list_keys(section_schema)));
}

struct YamlReader {
  const Descriptor& schema;
  const std::string& file;
  std::map<std::string, std::string>& sources;

  void read_section(Message& message, const YAML::Node& node, const std::string& section,
                    const std::string& where) {
    const Descriptor& descriptor = *message.GetDescriptor();
    if (node.IsNull()) return;  // a section whose keys are all commented out
    if (!node.IsMap()) {
      wrong_shape(node, fmt::format("keys ({})", list_keys(descriptor)),
                  section.empty() ? "the config" : section, where);
    }
    for (const auto& entry : node) {
      const std::string key_where = place(file, entry.first.Mark());
      if (!entry.first.IsScalar()) fail_at(key_where, "a key must be a plain word");
      const std::string& name = entry.first.Scalar();
      const FieldDescriptor* field = descriptor.FindFieldByName(name);
      if (field == nullptr)
        unknown_key(schema, section, name, descriptor, key_where, join_key(section, name));
      const std::string key = join_key(section, name);
      const auto [first, fresh] = sources.emplace(key, key_where);
      if (!fresh)
        fail_at(key_where,
                fmt::format("duplicate key '{}', first set at {}: remove one", key, first->second));
      read_value(message, *field, entry.second, key, key_where);
    }
  }

  void read_value(Message& message, const FieldDescriptor& field, const YAML::Node& node,
                  const std::string& key, const std::string& where) {
    if (field.is_map()) {
      read_map(message, field, node, key, where);
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      read_section(*message.GetReflection()->MutableMessage(&message, &field), node, key, where);
    } else if (field.is_repeated()) {
      read_list(message, field, node, key, where);
    } else {
      const auto value = scalar_of(node, key, where);
      if (!value) wrong_shape(node, expected_scalar(field), key, where);
      set_scalar(message, field, *value, key, where);
    }
  }
};

/// Notes where the documents of a YAML text begin, and nothing else.
class DocumentMarks final : public YAML::EventHandler {
 public:
  std::vector<YAML::Mark> marks;

  void OnDocumentStart(const YAML::Mark& mark) override { marks.push_back(mark); }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

/// The only document of a YAML text.
YAML::Node parse(const std::string& text, const std::string& name) {
  try {
    // Not YAML::LoadAll: yaml-cpp 0.7 finds documents without end where a tag is
    // malformed ("!a,b\n=").
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    DocumentMarks documents;
    for (int i = 0; i < 2 && parser.HandleNextDocument(documents); ++i) continue;
    if (documents.marks.size() > 1) {
      fail_at(place(name, documents.marks[1]),
              "a second document begins (---): a config is one document");
    }
    return documents.marks.empty() ? YAML::Node() : YAML::Load(text);
  } catch (const YAML::DeepRecursion& e) {
    fail_at(place(name, e.mark), "nested too deeply for a config");
  } catch (const YAML::Exception& e) {
    fail_at(place(name, e.mark),
            fmt::format("not valid YAML: {} (column {})", e.msg, e.mark.column + 1));
  }
}

bool looks_quoted(const std::string& text) {
  return text.size() >= 2 && (text[0] == '"' || text[0] == '\'');
}

}  // namespace

void check_config_text(const std::string& text, const std::string& where) {
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t codepoint = 0;
    const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at);
    const auto length =
        utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - at), &codepoint);
    if (length <= 0)
      fail_at(where, fmt::format("byte {} is not UTF-8: save the file as UTF-8", at));
    if (codepoint == 0) fail_at(where, fmt::format("byte {} is NUL: this is not a text file", at));
    at += static_cast<size_t>(length);
  }
}

void ConfigReader::read_yaml(const std::string& text, const std::string& name) {
  if (text.size() > kMaxFileBytes) {
    fail_usage("{}: {} bytes are too many for a config (at most {}); is this the right file?", name,
               text.size(), kMaxFileBytes);
  }
  check_config_text(text, name);
  YamlReader reader{*root_.GetDescriptor(), name, sources_};
  reader.read_section(root_, parse(text, name), "", name);
}

void ConfigReader::read_override(const std::string& assignment) {
  const std::string where = kCommandLine;
  // Hydra's marks, which verl's command lines have.
  const size_t mark = assignment.find_first_not_of('+');
  if (assignment.starts_with('+') && mark != std::string::npos) {
    fail_at(where, fmt::format("'{}' begins with {}: write {}", shown(assignment),
                               assignment.substr(0, mark), shown(assignment.substr(mark))));
  }
  if (assignment.starts_with('~')) {
    fail_at(where, fmt::format("'{}' begins with ~: keys cannot be removed, set one to its default",
                               shown(assignment)));
  }
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail_at(where,
            fmt::format("'{}' is not an override: write key=value, such as actor.optim.lr=1e-5",
                        shown(assignment)));
  }
  check_config_text(assignment, where);
  const std::string key = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  Message* message = &root_;
  std::string section;
  for (size_t begin = 0;;) {
    const size_t dot = key.find('.', begin);
    const std::string name = key.substr(begin, dot == std::string::npos ? dot : dot - begin);
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(name);
    if (field == nullptr)
      unknown_key(*root_.GetDescriptor(), section, name, *message->GetDescriptor(), where, key);
    if (field->is_map()) {
      const std::string entry = dot == std::string::npos ? "" : key.substr(dot + 1);
      const YAML::Node value = parse(text, where);
      if (dot == std::string::npos) {
        read_map(*message, *field, value, key, where);
      } else {
        check_entry_name(entry, join_key(section, name), where);
        set_entry(*message, *field, entry, yaml_as_json(value, key, where));
      }
      sources_[key] = where;
      return;
    }
    const bool is_section = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (dot != std::string::npos) {
      if (!is_section)
        fail_at(where,
                fmt::format("'{}' in '{}' is not a section", join_key(section, name), shown(key)));
      message = message->GetReflection()->MutableMessage(message, field);
      section = join_key(section, name);
      begin = dot + 1;
      continue;
    }
    if (is_section) {
      fail_at(where, fmt::format("{} is a section: set one of its keys, such as {}.{}=...", key,
                                 key, field->message_type()->field(0)->name()));
    }
    if (field->is_repeated()) {
      // Text as it stands is a list of one.
      const bool yaml = text.starts_with('[') || looks_quoted(text);
      const bool null = text == "null" || text == "~";
      read_list(*message, *field, yaml || null ? parse(text, where) : YAML::Node(text), key, where);
    } else if (looks_quoted(text)) {
      const auto value = scalar_of(parse(text, where), key, where);
      set_scalar(*message, *field, value.value_or(Scalar{text, true, false}), key, where);
    } else {
      const bool null = text == "null" || text == "~";
      set_scalar(*message, *field, {text, false, null}, key, where);
    }
    sources_[key] = where;
    return;
  }
}

std::string ConfigReader::source(const std::string& key) const {
  const auto found = sources_.find(key);
  return found == sources_.end() ? "" : found->second;
}

}  // namespace orrery::config
