// The subcommands of `orrery`. Each add_* function declares options and help and stores
// what to run in `run`; main.cc runs it after parsing. Commands print results on stdout
// and return an exit code; errors are thrown.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace orrery::tools {

/// The largest --ranks, more than any job has.
inline constexpr int64_t kMaxRanks = 1 << 20;

/// What the chosen subcommand does.
using Command = std::function<int()>;

void add_train_command(CLI::App& app, Command& run);
/// `mpirun_words`: what followed -- on the command line.
void add_launch_command(CLI::App& app, Command& run, const std::vector<std::string>& mpirun_words);
void add_eval_command(CLI::App& app, Command& run);
void add_generate_command(CLI::App& app, Command& run);
void add_logprobs_command(CLI::App& app, Command& run);
void add_config_command(CLI::App& app, Command& run);
void add_bench_command(CLI::App& app, Command& run);
void add_rollouts_command(CLI::App& app, Command& run);
void add_audit_command(CLI::App& app, Command& run);

/// The words of a command line for CLI::App::parse, which takes them last first. CLI11
/// is kept from two readings of its own: "--name=" would take the next word as its
/// value (here it is an empty value), and a list among the positional words ("[a, b]")
/// would be split; no word of ours is such a list, so it is a usage error. So is a
/// command or an option that there is not (tools/usage.h).
std::vector<std::string> words_to_parse(const CLI::App& app, int argc, const char* const* argv);

/// A text option that may be given several times, one value each, which is taken as it
/// stands: CLI11 would split "[INST] a, b [/INST]" at its comma and take the brackets
/// off.
inline CLI::Option* add_texts(CLI::App& command, const std::string& name,
                              std::vector<std::string>& values, const std::string& help) {
  return command.add_option(name, values, help)->allow_extra_args(false);
}

/// For CLI::Option::check: a whole number from `least` to `most`. (CLI11's own checks
/// print the range of double.)
inline CLI::Validator whole_number(int64_t least, int64_t most = INT64_MAX) {
  return CLI::Validator(
      [least, most](std::string& text) {
        int64_t value = 0;
        const char* const end = text.data() + text.size();
        const auto result = std::from_chars(text.data(), end, value);
        if (result.ec == std::errc() && result.ptr == end && least <= value && value <= most)
          return std::string();
        const std::string up_to = most == INT64_MAX ? "" : " and at most " + std::to_string(most);
        return "give a whole number of at least " + std::to_string(least) + up_to + ", not " +
               text.substr(0, 40);
      },
      ">=" + std::to_string(least));
}

/// As whole_number, for numbers with a fraction. "nan" and "inf" are refused.
inline CLI::Validator number_in(double least, double most) {
  return CLI::Validator(
      [least, most](std::string& text) {
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        return !text.empty() && *end == 0 && value >= least && value <= most
                   ? std::string()
                   : fmt::format("give a number from {:g} to {:g}, not {:.40}", least, most, text);
      },
      fmt::format("{:g} - {:g}", least, most));
}

/// One of these words.
inline CLI::Validator one_of(std::vector<std::string> choices) {
  std::string all;
  for (size_t i = 0; i < choices.size(); ++i)
    all += (i == 0 ? "" : i + 1 == choices.size() ? " or " : ", ") + choices[i];
  return CLI::Validator(
      [choices = std::move(choices), all](std::string& text) {
        for (const std::string& choice : choices) {
          if (choice == text) return std::string();
        }
        return fmt::format("give {}, not {}", all, text.empty() ? "nothing" : text.substr(0, 40));
      },
      "");
}

}  // namespace orrery::tools
