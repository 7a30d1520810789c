#include <algorithm>
#include <string_view>

#include "core/error.h"
#include "tools/commands.h"
#include "tools/usage.h"

namespace orrery::tools {
namespace {

/// Returns the subcommand of this name; null when `app` has none.
const CLI::App* find_subcommand(const CLI::App& app, const std::string& name) {
  const auto found =
      app.get_subcommands([&](const CLI::App* one) { return one->get_name() == name; });
  return found.empty() ? nullptr : found.front();
}

/// Whether an option takes a value. `name` comes with its dashes.
bool takes_value(const CLI::App& app, const std::string& name) {
  const CLI::Option* option = app.get_option_no_throw(name);
  return option != nullptr && option->get_items_expected_max() > 0;
}

bool takes_overrides(const CLI::App& app) {
  return app.get_option_no_throw("overrides") != nullptr;
}

/// Whether a command does nothing by itself.
bool needs_command(const CLI::App& app) { return app.get_require_subcommand_min() > 0; }

bool is_list(std::string_view word) {
  return word.size() >= 2 && word.front() == '[' && word.back() == ']';
}

}  // namespace

std::vector<std::string> words_to_parse(const CLI::App& app, int argc, const char* const* argv) {
  const CLI::App* command = &app;
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--") {  // what follows are no options
      words.insert(words.end(), argv + i, argv + argc);
      break;
    }
    const bool is_option = word.size() >= 2 && word.front() == '-';
    if (!is_option) {
      if (const CLI::App* sub = find_subcommand(*command, word)) {
        command = sub;
      } else if (needs_command(*command)) {
        fail_command(*command, word);
      } else if (is_list(word) && takes_overrides(*command)) {
        fail_usage("'{}' is a list; give each key=value as a word of its own", word);
      }
      words.push_back(word);
      continue;
    }
    const size_t equals = word.find('=');
    std::string name = word.substr(0, equals);
    if (command->get_option_no_throw(name) == nullptr) {
      const std::string letter = word.substr(0, 2);  // "-n4"
      if (word[1] == '-' || command->get_option_no_throw(letter) == nullptr)
        fail_option(*command, name);
      words.push_back(word);
      continue;
    }
    const bool takes = takes_value(*command, name);
    if (takes && equals + 1 == word.size()) {  // an empty value, not the next word
      words.push_back(name);
      words.emplace_back();
      continue;
    }
    words.push_back(word);
    // The next word is the value, whatever it looks like.
    if (takes && equals == std::string::npos && i + 1 < argc) words.emplace_back(argv[++i]);
  }
  const bool asks = std::ranges::any_of(words, [](const std::string& word) {
    return word == "--help" || word == "-h" || word == "--version";
  });
  if (needs_command(*command) && !asks) fail_command(*command, "");
  std::reverse(words.begin(), words.end());
  return words;
}

}  // namespace orrery::tools
