// Reads YAML and key=value overrides strictly into a Protobuf message, by its schema.
// All errors are usage Errors that begin with file:line or "command line".
#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <string>

namespace orrery::config {

class ConfigReader {
 public:
  /// Fills `root`, which must outlive the reader.
  explicit ConfigReader(google::protobuf::Message& root) : root_(root) {}

  /// Reads one YAML document. `name` stands for the file in messages.
  void read_yaml(const std::string& text, const std::string& name);

  /// Reads "section.key=value". Text is taken as it stands unless it is quoted; a list
  /// is written [a, b]. A later override wins.
  void read_override(const std::string& assignment);

  /// Says where a key was set: "file:line" or kCommandLine; empty when it was not.
  std::string source(const std::string& key) const;
  static constexpr const char* kCommandLine = "command line";

 private:
  google::protobuf::Message& root_;
  std::map<std::string, std::string> sources_;
};

/// Sets every absent key that has a default and makes every section present.
void fill_defaults(google::protobuf::Message& message);

/// Returns the message as YAML with every key of its schema; an absent text is null.
std::string proto_to_yaml(const google::protobuf::Message& message);

}  // namespace orrery::config
