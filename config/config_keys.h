// The names of a Protobuf schema's keys, and what a mistyped one may have meant. Pure
// functions, thread-safe.
#pragma once

#include <google/protobuf/descriptor.h>

#include <string>
#include <string_view>
#include <vector>

namespace orrery::config {

/// Returns "section.key", or "key" when the section is the root ("").
std::string join_key(std::string_view section, std::string_view key);

/// Returns the dotted names of all sections and keys, in the schema's order.
std::vector<std::string> all_keys(const google::protobuf::Descriptor& schema);

/// Counts the insertions, deletions, substitutions and swaps of neighbours that turn
/// one word into the other.
size_t edit_distance(std::string_view a, std::string_view b);

/// Returns the dotted name that `key` in `section` most likely means: a similar name
/// there, else the same or a similar name in another section. Empty when none is close.
std::string suggest_key(const google::protobuf::Descriptor& schema, std::string_view section,
                        std::string_view key);

/// Lists the keys of one section: "a, b, c".
std::string list_keys(const google::protobuf::Descriptor& section);

/// Returns an enum value as YAML has it: in lower case, with - for _.
std::string enum_word(const google::protobuf::EnumValueDescriptor& value);

/// Lists all words of an enum: "a, b or c".
std::string list_enum_words(const google::protobuf::EnumDescriptor& type);

}  // namespace orrery::config
