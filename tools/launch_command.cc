#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "experiments/config_check.h"
#include "launch/launcher.h"
#include "tools/commands.h"

namespace orrery::tools {
void add_launch_command(CLI::App& app, Command& run, const std::vector<std::string>& mpirun_words) {
  CLI::App* command = app.add_subcommand(
      "launch", "Train under mpirun, restarting from the last checkpoint when ranks crash or hang");
  command->footer(
      "Example:\n"
      "  orrery launch -n 4 experiments/quickstart.yaml run_dir=runs/a\n"
      "  orrery launch -n 16 --hang-timeout 900 experiments/gsm8k_smollm2_135m.yaml -- --hostfile "
      "hosts\n"
      "A config error ends it (exit code 2), and a policy that has diverged (3); "
      "so do too many restarts without a new checkpoint, the same error\n"
      "three times without one, and an mpirun that cannot start the ranks (exit code 1). "
      "SIGTERM, SIGINT,\n"
      "SIGUSR1, or SIGHUP unless nohup ignores it: the ranks save, exit code 0; "
      "a second SIGTERM, SIGINT or SIGHUP\n"
      "a second later or more ends them at once. "
      "RUN_DIR/status.json says what every rank does, and at last how the run ended.\n"
      "For Slurm see tools/slurm/train.sbatch.");
  auto options = std::make_shared<launch::LaunchOptions>();
  options->mpirun_arguments = mpirun_words;
  auto hang_timeout = std::make_shared<double>(-1);
  command->add_option("config", options->config, "YAML file")->required();
  command->add_option(
      "overrides", options->overrides,
      "key=value pairs that replace values of the file; after --: words for mpirun");
  command->add_option("-n,--ranks", options->ranks, "Ranks to start")
      ->required()
      ->check(whole_number(1, kMaxRanks));
  command
      ->add_option("--max-restarts", options->restart.max_restarts,
                   "Restarts in a row without a new checkpoint until it gives up")
      ->check(whole_number(0, 1000'000))
      ->capture_default_str();
  command
      ->add_option(
          "--backoff", options->restart.backoff,
          "Seconds before the first restart; doubled by each one without a new checkpoint, "
          "up to 60")
      ->check(number_in(0, 60))
      ->capture_default_str();
  command
      ->add_option(
          "--hang-timeout", *hang_timeout,
          "Seconds without progress or word of a rank until the job is ended and restarted, 0: "
          "never (default: cluster.hang_timeout_s)")
      ->check(number_in(0, 1e9));
  command
      ->add_option("--stop-timeout", options->stop_timeout,
                   "Seconds that ranks have to save when asked to stop")
      ->check(number_in(0, 1e9))
      ->capture_default_str();
  command->callback([=, &run] {
    run = [=] {
      launch::LaunchOptions chosen = *options;
      if (*hang_timeout >= 0) chosen.hang_timeout = *hang_timeout;
      const proto::Config config = config::load_config(chosen.config, chosen.overrides);
      experiments::check_config(config, chosen.ranks);
      return launch::run_launch(chosen, config);
    };
  });
}

}  // namespace orrery::tools
