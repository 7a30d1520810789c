#include "tools/usage.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "config/config_keys.h"
#include "core/ascii.h"
#include "core/error.h"

namespace orrery::tools {
namespace {

std::vector<std::string> command_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_name().empty()) names.push_back(sub->get_name());
  }
  return names;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& names) {
  const std::string close = closest_name(word, names);
  return close.empty() ? "" : fmt::format("; did you mean {}?", close);
}

/// "a", "a or b", "a, b or c".
std::string alternatives(const std::vector<std::string>& names) {
  if (names.size() < 2) return fmt::format("{}", fmt::join(names, ""));
  return fmt::format("{} or {}", fmt::join(names.begin(), names.end() - 1, ", "), names.back());
}

/// A positional word as --help shows it.
std::string shown(const std::string& name) {
  if (name.starts_with('-')) return name;
  return to_upper(name);
}

/// "ckpt show: "; every message begins with "orrery: " anyway.
std::string prefix(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  if (parent == nullptr) return "";
  const std::string before = prefix(*parent);
  return fmt::format("{}{}: ", before.substr(0, before.find(':')) + (before.empty() ? "" : " "),
                     command.get_name());
}

}  // namespace

std::string command_line_name(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent == nullptr ? command.get_name()
                           : fmt::format("{} {}", command_line_name(*parent), command.get_name());
}

std::string closest_name(std::string_view word, const std::vector<std::string>& names) {
  constexpr size_t kLongest = 60;
  if (word.size() > kLongest) return "";
  const auto bare = [](std::string_view name) {
    name.remove_prefix(std::min(name.find_first_not_of('-'), name.size()));
    return name;
  };
  const std::string_view given = bare(word);
  std::string best;
  size_t best_distance = SIZE_MAX;
  for (const std::string& name : names) {
    const std::string_view known = bare(name);
    if (known.size() < 2) continue;
    // A beginning is an abbreviation: --temp.
    const bool begins = given.size() >= 3 && known.starts_with(given);
    const size_t distance = begins ? 1 : config::edit_distance(given, known);
    if (distance > std::max<size_t>(1, std::min<size_t>(3, known.size() / 3))) continue;
    if (distance > best_distance || (distance == best_distance && name.size() >= best.size()))
      continue;
    best = name;
    best_distance = distance;
  }
  return best;
}

void fail_command(const CLI::App& command, const std::string& word) {
  const std::string name = command_line_name(command), where = prefix(command);
  const std::vector<std::string> names = command_names(command);
  if (word.empty()) {
    fail_usage("{}a command is missing: {}; see {} --help", where, alternatives(names), name);
  }
  const std::string meant = did_you_mean(word, names);
  fail_usage("{}there is no command '{:.60}'{}; see {} --help", where, word,
             meant.empty() ? fmt::format(" (there are {})", fmt::join(names, ", ")) : meant, name);
}

void fail_option(const CLI::App& command, const std::string& option) {
  const std::string name = command_line_name(command);
  std::string meant = did_you_mean(option, option_names(command));
  const bool is_key =
      option.find('.') != std::string::npos || option.find('_') != std::string::npos;
  if (meant.empty() && command.get_option_no_throw("overrides") != nullptr && is_key)
    meant = "; a key of the config is set without dashes: key=value";
  fail_usage("{}there is no option {:.60}{}; see {} --help", prefix(command), option, meant, name);
}

std::string usage_text(const CLI::App& command, const CLI::ParseError& error) {
  const std::string name = command_line_name(command);
  std::string text = error.what();
  const auto begin_of = [&text](std::string_view mark) { return text.substr(0, text.find(mark)); };
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    text = shown(begin_of(" is required")) + " is missing";
  } else if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    text = shown(begin_of(":")) +
           (text.find(" missing") != std::string::npos ? " needs a value" : " takes one value");
  } else if (dynamic_cast<const CLI::ConversionError*>(&error) != nullptr) {
    constexpr std::string_view kMark = "Could not convert: ";
    const size_t at = text.find(kMark);
    if (at != std::string::npos)
      text = fmt::format("{}: not a value it takes", text.substr(at + kMark.size()));
  } else if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    const auto extras = command.remaining();
    text = extras.empty() ? "there is a word too many"
                          : fmt::format("there is no place for '{:.60}'", extras.front());
  }
  return fmt::format("{}{}; see {} --help", prefix(command), text, name);
}

}  // namespace orrery::tools
