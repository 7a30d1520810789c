// The subcommands of `orrery`. Each add_* function declares options and help and stores what to run in `run`;
// main.cc runs it after parsing. Commands print results on stdout and return an exit code; errors are thrown.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace orrery {

/// What the chosen subcommand does.
using Command = std::function<int()>;

void add_train_command(CLI::App& app, Command& run);
void add_eval_command(CLI::App& app, Command& run);
void add_generate_command(CLI::App& app, Command& run);
void add_logprobs_command(CLI::App& app, Command& run);
void add_config_command(CLI::App& app, Command& run);
void add_bench_command(CLI::App& app, Command& run);
void add_rollouts_command(CLI::App& app, Command& run);

}  // namespace orrery
