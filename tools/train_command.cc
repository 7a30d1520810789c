#include <cstdio>
#include <memory>
#include <vector>

#include "config/config.h"
#include "core/error.h"
#include "core/fault.h"
#include "experiments/agreement.h"
#include "experiments/config_check.h"
#include "experiments/config_files.h"
#include "experiments/evaluate.h"
#include "experiments/job.h"
#include "experiments/train.h"
#include "tools/commands.h"
#include "tools/ranks.h"

namespace orrery::tools {
namespace {

/// As run_on_ranks, with the config, checked for `use`: work(config, ranks).
/// Error when the ranks were not given the same.
template <class Work>
int run_config_on_ranks(const std::string& command, const std::string& config_path,
                        const std::vector<std::string>& overrides, experiments::ConfigUse use,
                        Work&& work) {
  return run_on_ranks([&](comm::CommWorld& ranks) {
    proto::Config config;
    experiments::together(ranks.world(),
                          [&] { config = config::load_config(config_path, overrides); });
    experiments::agree_on_config(ranks.world(), command, config);
    experiments::together(ranks.world(),
                          [&] { experiments::check_config(config, ranks.world().size(), use); });
    return work(config, ranks);
  });
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
  auto config = std::make_shared<std::string>();
  auto overrides = std::make_shared<std::vector<std::string>>();
  command->add_option("config", *config, "YAML file")->required();
  command->add_option("overrides", *overrides, "key=value pairs that replace values of the file");
  command->callback([=, &run] {
    run = [=] {
      launch::catch_early_stop();
      return run_config_on_ranks("train", *config, *overrides, experiments::ConfigUse::kTraining,
                                 [](const proto::Config& c, comm::CommWorld& ranks) {
                                   return experiments::run_training(c, config::config_to_yaml(c),
                                                                    ranks);
                                 });
    };
  });
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
  auto config = std::make_shared<std::string>();
  auto options = std::make_shared<experiments::EvaluationOptions>();
  auto overrides = std::make_shared<std::vector<std::string>>();
  command->add_option("config", *config, "YAML file")->required();
  command->add_option("overrides", *overrides, "key=value pairs that replace values of the file");
  command->add_option(
      "--checkpoint", options->checkpoint,
      "Checkpoint folder, run folder (its newest checkpoint), or Hugging Face folder (default: "
      "model.path)");
  command->add_option("--out", options->out,
                      "Write the samples to this JSONL file (replaced if it is there)");
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([=, &run] {
    run = [=] {
      options->config_file = *config;
      const std::string called = fmt::format(
          "eval{}{}", options->checkpoint.empty() ? "" : " --checkpoint ", options->checkpoint);
      return run_config_on_ranks(called, *config, *overrides, experiments::ConfigUse::kEvaluation,
                                 [=](const proto::Config& c, comm::CommWorld& ranks) {
                                   return experiments::run_evaluation(c, *options, ranks.world(),
                                                                      ranks.local_ranks());
                                 });
    };
  });
}

void add_config_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand(
      "config", "Check a config and print it with every key, and its batch sizes");
  command->footer(
      "Examples:\n  orrery config experiments/quickstart.yaml rollout.n=16 --ranks 4\n"
      "  orrery config experiments/quickstart.yaml --files\n"
      "Every key: docs/config.md. Coming from verl, TRL, OpenRLHF: docs/migration.md.");
  auto config = std::make_shared<std::string>();
  auto overrides = std::make_shared<std::vector<std::string>>();
  auto ranks = std::make_shared<int>(1);
  auto faults = std::make_shared<bool>(false);
  auto files = std::make_shared<bool>(false);
  command->add_option("config", *config, "YAML file");
  command->add_option("overrides", *overrides, "key=value pairs that replace values of the file");
  command->add_option("--ranks", *ranks, "Ranks to check it for")
      ->check(whole_number(1, kMostRanks));
  command->add_flag(
      "--files", *files,
      "Read the files, too: model, data and texts, every prompt measured; say what was found");
  command->add_flag("--faults", *faults,
                    "List the points and actions of ORRERY_FAULT (fault injection)");
  command->callback([=, &run] {
    run = [=] {
      if (*faults) {
        std::printf("%s", describe_faults().c_str());
        return kExitOk;
      }
      if (config->empty()) fail_usage("config: CONFIG is missing; see orrery config --help");
      const proto::Config resolved = config::load_config(*config, *overrides);
      experiments::check_config(resolved, *ranks);
      experiments::warn_of_threads(resolved);
      if (*files) {
        std::printf("%s", experiments::describe_files(resolved).c_str());
        return kExitOk;
      }
      std::printf("%s", config::config_to_yaml(resolved).c_str());
      std::fflush(stdout);
      std::fprintf(stderr, "%s\n", experiments::describe_batch(resolved, *ranks).c_str());
      return kExitOk;
    };
  });
}

}  // namespace orrery::tools
