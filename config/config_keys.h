// Names of the keys of a Protobuf schema, and what a mistyped one may have meant.
#pragma once

#include <google/protobuf/descriptor.h>

#include <string>
#include <string_view>
#include <vector>

namespace orrery::config {

/// "section.key", or "key" when the section is the root ("").
std::string join_key(std::string_view section, std::string_view key);

/// Dotted names of all sections and keys, in schema order.
std::vector<std::string> all_keys(const google::protobuf::Descriptor& schema);

/// Insertions, deletions, substitutions and swaps of neighbours between two words.
size_t edit_distance(std::string_view a, std::string_view b);

/// The dotted name that `key` in `section` most likely means: a similar name there,
/// else the same or a similar name in another section. Empty: nothing is close.
std::string suggest_key(const google::protobuf::Descriptor& schema, std::string_view section,
                        std::string_view key);

/// Keys of one section: "a, b, c".
std::string list_keys(const google::protobuf::Descriptor& section);

/// An enum value as it is written in YAML: lower case, - for _.
std::string enum_word(const google::protobuf::EnumValueDescriptor& value);

/// All words of an enum: "a, b or c".
std::string list_enum_words(const google::protobuf::EnumDescriptor& type);

}  // namespace orrery::config
