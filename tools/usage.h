// What is wrong with a command line, in our words: commands, options and values are
// named, and a mistyped one may have meant another.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::tools {

/// "orrery ckpt show", for messages.
std::string command_line_name(const CLI::App& command);

/// The one of `names` that `word` may be a slip of; empty: none.
std::string closest_name(std::string_view word, const std::vector<std::string>& names);

/// Usage Error: `command` has no command of this name, or none is given (empty).
[[noreturn]] void fail_command(const CLI::App& command, const std::string& word);

/// Usage Error: `command` has no option of this name (with its dashes).
[[noreturn]] void fail_option(const CLI::App& command, const std::string& name);

/// The line for what CLI11 found wrong. `command`: the innermost that was named.
std::string usage_text(const CLI::App& command, const CLI::ParseError& error);

}  // namespace orrery::tools
