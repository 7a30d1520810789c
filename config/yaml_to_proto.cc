#include "config/yaml_to_proto.h"

#include <yaml-cpp/yaml.h>

#include <optional>
#include <set>
#include <utility>

#include "config/config_keys.h"
#include "config/foreign_keys.h"
#include "config/yaml_document.h"
#include "config/yaml_json.h"
#include "config/yaml_scalar.h"
#include "core/error.h"

namespace orrery::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kMaxFileBytes = 1 << 18;
constexpr size_t kMaxListItems = 10'000;
constexpr size_t kMaxEntryName = 200;

/// Fails where a node has another shape than the schema asks for, which is `expected`.
[[noreturn]] void wrong_shape(const YAML::Node& node, const std::string& expected,
                              const std::string& key, const std::string& where) {
  const char* given = node.IsSequence() ? "a list" : node.IsMap() ? "a section" : "a single value";
  fail_at(where, fmt::format("{} is {}: expected {}", key, given, expected));
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

/// Reads all of a mapping, in place of what was there.
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

/// `written` is the whole dotted name, in which `key` in `section` is unknown.
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

bool looks_quoted(const std::string& text) {
  return text.size() >= 2 && (text[0] == '"' || text[0] == '\'');
}

/// Whether an override's text stands for no value.
bool is_null(const std::string& text) { return text == "null" || text == "~"; }

/// Where the key of an override leads.
struct Target {
  Message* section;
  const FieldDescriptor* field;
  std::string key;                   ///< the field's dotted name
  std::optional<std::string> entry;  ///< of a mapping, what stands behind its name
};

/// Error for a key that the schema does not have, and for one that is a section.
Target find_target(Message& root, const std::string& key, const std::string& where) {
  Message* message = &root;
  std::string section;
  for (size_t begin = 0;;) {
    const size_t dot = key.find('.', begin);
    const bool last = dot == std::string::npos;
    const std::string name = key.substr(begin, last ? dot : dot - begin);
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(name);
    if (field == nullptr)
      unknown_key(*root.GetDescriptor(), section, name, *message->GetDescriptor(), where, key);
    const std::string found = join_key(section, name);
    if (field->is_map()) {
      Target target{message, field, found, std::nullopt};
      if (!last) target.entry = key.substr(dot + 1);
      return target;
    }
    const bool is_section = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (last && is_section) {
      fail_at(where, fmt::format("{} is a section: set one of its keys, such as {}.{}=...", key,
                                 key, field->message_type()->field(0)->name()));
    }
    if (last) return {message, field, found, std::nullopt};
    if (!is_section)
      fail_at(where, fmt::format("'{}' in '{}' is not a section", found, shown(key)));
    message = message->GetReflection()->MutableMessage(message, field);
    section = found;
    begin = dot + 1;
  }
}

/// Sets the whole of a mapping, or one entry of it.
void set_map(const Target& target, const std::string& text, const std::string& key,
             const std::string& where) {
  const YAML::Node value = parse_yaml(text, where);
  if (!target.entry) return read_map(*target.section, *target.field, value, key, where);
  check_entry_name(*target.entry, target.key, where);
  set_entry(*target.section, *target.field, *target.entry, yaml_as_json(value, key, where));
}

void set_target(const Target& target, const std::string& text, const std::string& key,
                const std::string& where) {
  Message& section = *target.section;
  const FieldDescriptor& field = *target.field;
  if (field.is_map()) return set_map(target, text, key, where);
  if (field.is_repeated()) {
    // Text as it stands is a list of one.
    const bool yaml = text.starts_with('[') || looks_quoted(text) || is_null(text);
    read_list(section, field, yaml ? parse_yaml(text, where) : YAML::Node(text), key, where);
  } else if (looks_quoted(text)) {
    const auto value = scalar_of(parse_yaml(text, where), key, where);
    set_scalar(section, field, value.value_or(Scalar{text, true, false}), key, where);
  } else {
    set_scalar(section, field, {text, false, is_null(text)}, key, where);
  }
}

/// Where the "=" of an override is. Error when it is none, or has Hydra's marks, which
/// verl's command lines have.
size_t find_equals(const std::string& assignment, const std::string& where) {
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
  return equals;
}

}  // namespace

void ConfigReader::read_yaml(const std::string& text, const std::string& name) {
  if (text.size() > kMaxFileBytes) {
    fail_usage("{}: {} bytes are too many for a config (at most {}); is this the right file?", name,
               text.size(), kMaxFileBytes);
  }
  check_config_text(text, name);
  YamlReader reader{*root_.GetDescriptor(), name, sources_};
  reader.read_section(root_, parse_yaml(text, name), "", name);
}

void ConfigReader::read_override(const std::string& assignment) {
  const std::string where = kCommandLine;
  const size_t equals = find_equals(assignment, where);
  check_config_text(assignment, where);
  const std::string key = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  set_target(find_target(root_, key, where), text, key, where);
  sources_[key] = where;
}

std::string ConfigReader::source(const std::string& key) const {
  const auto found = sources_.find(key);
  return found == sources_.end() ? "" : found->second;
}

}  // namespace orrery::config
