// Scalars of a config: words of YAML or of the command line, checked against the type
// and the range that the schema gives a key. All errors are usage Errors that begin
// with `where` ("file:line" or "command line") and name the key.
#pragma once

#include <google/protobuf/message.h>
#include <yaml-cpp/yaml.h>

#include <optional>
#include <string>

namespace orrery::config {

/// A scalar as it was written.
struct Scalar {
  std::string text;
  bool quoted = false;
  bool null = false;
};

/// The scalar that a node is; nothing when it is a list or a mapping. Error when it has
/// a tag.
std::optional<Scalar> scalar_of(const YAML::Node& node, const std::string& key,
                                const std::string& where);

/// What a key takes, for a message: "true or false", "a whole number", "a, b or c".
std::string expected_scalar(const google::protobuf::FieldDescriptor& field);

/// Sets a key, or appends to a list, from one scalar. Error when it has another type,
/// is out of the key's range or too long.
void set_scalar(google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field,
                const Scalar& value, const std::string& key, const std::string& where);

}  // namespace orrery::config
