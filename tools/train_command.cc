#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/error.h"
#include "core/fault.h"
#include "experiments/agreement.h"
#include "experiments/config_check.h"
#include "experiments/config_files.h"
#include "experiments/evaluate.h"
#include "experiments/job.h"
#include "experiments/on_all_ranks.h"
#include "experiments/train.h"
#include "launch/stop_signal.h"
#include "tools/commands.h"
#include "tools/ranks.h"

namespace orrery::tools {
namespace {

/// A config as a command line names it.
struct ConfigOptions {
  std::string file;
  std::vector<std::string> overrides;

  CLI::Option* add_to(CLI::App& command) {
    CLI::Option* option = command.add_option("config", file, "YAML file");
    command.add_option("overrides", overrides, "key=value pairs that replace values of the file");
    return option;
  }
};

/// The config, checked for `use`. Collective over `world`. Error, alike on all ranks,
/// when they were not given the same or it is wrong. `command`: what they were called
/// with.
proto::Config read_config(comm::Communicator& world, const std::string& command,
                          const ConfigOptions& options, experiments::ConfigUse use) {
  proto::Config config;
  experiments::on_all_ranks(world,
                            [&] { config = config::load_config(options.file, options.overrides); });
  experiments::agree_on_config(world, command, config);
  experiments::on_all_ranks(world, [&] { experiments::check_config(config, world.size(), use); });
  return config;
}

/// `orrery train`, on one rank.
int train(const std::shared_ptr<ConfigOptions>& options) {
  launch::catch_early_stop();
  Ranks ranks;
  try {
    const proto::Config config =
        read_config(ranks.world(), "train", *options, experiments::ConfigUse::kTraining);
    return experiments::run_training(config, ranks.all());
  } catch (const std::exception& error) {
    return ranks.fail(error);
  }
}

/// `orrery eval`, on one rank.
int evaluate(const std::shared_ptr<ConfigOptions>& options,
             const std::shared_ptr<experiments::EvaluationOptions>& evaluation) {
  Ranks ranks;
  try {
    const std::string& checkpoint = evaluation->checkpoint;
    const std::string called =
        fmt::format("eval{}{}", checkpoint.empty() ? "" : " --checkpoint ", checkpoint);
    const proto::Config config =
        read_config(ranks.world(), called, *options, experiments::ConfigUse::kEvaluation);
    evaluation->config_file = options->file;
    return experiments::run_evaluation(config, *evaluation, ranks.world(), ranks.local());
  } catch (const std::exception& error) {
    return ranks.fail(error);
  }
}

struct CheckOptions {
  ConfigOptions config;
  int ranks = 1;
  bool files = false, faults = false;
};

/// `orrery config`
int check_config(const std::shared_ptr<CheckOptions>& options) {
  if (options->faults) {
    std::printf("%s", describe_faults().c_str());
    return kExitOk;
  }
  const ConfigOptions& given = options->config;
  if (given.file.empty()) fail_usage("config: CONFIG is missing; see orrery config --help");
  const proto::Config config = config::load_config(given.file, given.overrides);
  experiments::check_config(config, options->ranks);
  experiments::warn_about_threads(config);
  if (options->files) {
    std::printf("%s", experiments::describe_files(config).c_str());
    return kExitOk;
  }
  std::printf("%s", config::config_to_yaml(config).c_str());
  std::fflush(stdout);
  std::fprintf(stderr, "%s\n", experiments::describe_batch(config, options->ranks).c_str());
  return kExitOk;
}

}  // namespace

void add_train_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand(
      "train", "Train a policy as a config file says; under mpirun, on all ranks");
  command->footer(
      "Example:\n"
      "  mpirun -n 2 --bind-to none orrery train experiments/quickstart.yaml actor.optim.lr=5e-5\n"
      "Keys and defaults: orrery config CONFIG. SIGTERM, SIGINT, SIGUSR1, "
      "or SIGHUP unless nohup ignores\n"
      "it: save and exit 0, at once while it generates, else after the update (docs/resume.md); "
      "a second SIGTERM,\n"
      "SIGINT or SIGHUP a second later or more ends it at once, with exit code 128 + signal.\n"
      "Exit code 3: the policy has diverged; the checkpoints are from before.");
  const auto options = std::make_shared<ConfigOptions>();
  options->add_to(*command)->required();
  command->callback([=, &run] { run = std::bind_front(train, options); });
}

void add_eval_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand(
      "eval", "Score a checkpoint or a Hugging Face folder on a config's held-out items");
  command->footer(
      "Example:\n"
      "  orrery eval experiments/gsm8k_smollm2_135m.yaml --checkpoint models/SmolLM2-135M-Instruct "
      "rollout.val_n=4 rollout.val_temperature=0.6 data.val_size=50\n"
      "Reports pass@1 (mean over samples), pass@k for k = 2, 4, ... "
      "up to rollout.val_n, and the mean reward. "
      "--out keeps the samples themselves, a JSON object a line, with prompt, response, truth, "
      "reward and whether the answer is correct.");
  const auto options = std::make_shared<ConfigOptions>();
  const auto evaluation = std::make_shared<experiments::EvaluationOptions>();
  options->add_to(*command)->required();
  command->add_option(
      "--checkpoint", evaluation->checkpoint,
      "Checkpoint folder, run folder (its newest checkpoint), or Hugging Face folder (default: "
      "model.path)");
  command->add_option("--out", evaluation->out,
                      "Write the samples to this JSONL file (replaced if it is there)");
  command->add_flag("--json", evaluation->json, "Print one JSON object");
  command->callback([=, &run] { run = std::bind_front(evaluate, options, evaluation); });
}

void add_config_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand(
      "config", "Check a config and print it with every key, and its batch sizes");
  command->footer(
      "Examples:\n  orrery config experiments/quickstart.yaml rollout.n=16 --ranks 4\n"
      "  orrery config experiments/quickstart.yaml --files\n"
      "Every key: docs/config.md. Coming from verl, TRL, OpenRLHF: docs/migration.md.");
  const auto options = std::make_shared<CheckOptions>();
  options->config.add_to(*command);
  command->add_option("--ranks", options->ranks, "Ranks to check it for")
      ->check(whole_number(1, kMaxRanks));
  command->add_flag(
      "--files", options->files,
      "Read the files, too: model, data and texts, every prompt measured; say what was found");
  command->add_flag("--faults", options->faults,
                    "List the points and actions of ORRERY_FAULT (fault injection)");
  command->callback([=, &run] { run = std::bind_front(check_config, options); });
}

}  // namespace orrery::tools
