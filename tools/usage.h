// Says what is wrong with a command line in our own words: messages name commands,
// options and values, and suggest what a mistyped one may have meant.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::tools {

/// Returns the command's full name for messages: "orrery ckpt show".
std::string command_line_name(const CLI::App& command);

/// Returns the one of `names` that `word` may be a slip of; empty when there is none.
std::string closest_name(std::string_view word, const std::vector<std::string>& names);

/// Throws a usage Error: `command` has no command of this name, or the name is empty
/// and none was given.
[[noreturn]] void fail_command(const CLI::App& command, const std::string& word);

/// Throws a usage Error: `command` has no option of this name (with its dashes).
[[noreturn]] void fail_option(const CLI::App& command, const std::string& name);

/// Returns the line for what CLI11 found wrong. `command` is the innermost command that
/// was named.
std::string usage_text(const CLI::App& command, const CLI::ParseError& error);

}  // namespace orrery::tools
