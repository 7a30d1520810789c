#include <unistd.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/flight_recorder.h"
#include "core/log.h"
#include "experiments/config.h"
#include "experiments/evaluate.h"
#include "experiments/together.h"
#include "experiments/train.h"
#include "tools/commands.h"

namespace orrery {
namespace {

void print_error(const Communicator& world, const char* text) {
  if (world.size() > 1) {
    std::fprintf(stderr, "orrery: rank %d: %s\n", world.rank(), text);
  } else {
    std::fprintf(stderr, "orrery: %s\n", text);
  }
}

/// Runs a collective job on every rank: an error that all ranks agree on is printed once, any other ends all
/// ranks.
template <class Work>
int run_on_ranks(const std::string& config_path, const std::vector<std::string>& overrides, Work&& work) {
  CommWorld ranks;
  Communicator& world = ranks.world();
  init_log(world.rank(), world.size());
  set_fault_rank(world.rank());
  const int shown_rank = world.size() > 1 ? world.rank() : -1;
  install_crash_handlers(shown_rank);
  int code = kExitFailure;
  try {
    proto::Config config;
    together(world, [&] {
      config = load_config(config_path, overrides);
      check_config(config, world.size());
    });
    return work(config, ranks);
  } catch (const AgreedError& error) {
    if (world.rank() == 0) std::fprintf(stderr, "orrery: %s\n", error.what());
    return error.exit_code();
  } catch (const Error& error) {
    print_error(world, error.what());
    code = error.exit_code();
  } catch (const std::exception& error) {
    print_error(world, error.what());
  }
  if (code == kExitFailure) print_flight_recorder(shown_rank);
  if (world.size() == 1) return code;
  ranks.abort(code);
}

}  // namespace

void add_train_command(CLI::App& app, Command& run) {
  CLI::App* command =
      app.add_subcommand("train", "Train a policy as a config file says; under mpirun, on all ranks");
  command->footer(
      "Example:\n  mpirun -n 2 --bind-to none orrery train experiments/quickstart.yaml actor.optim.lr=5e-5\n"
      "Keys and defaults: orrery config CONFIG. SIGTERM, SIGINT or SIGUSR1: finish the step, save, exit 0.");
  auto config = std::make_shared<std::string>();
  auto overrides = std::make_shared<std::vector<std::string>>();
  command->add_option("config", *config, "YAML file")->required();
  command->add_option("overrides", *overrides, "key=value pairs that replace values of the file");
  command->callback([=, &run] {
    run = [=] {
      return run_on_ranks(*config, *overrides, [](const proto::Config& c, CommWorld& ranks) {
        return run_training(c, config_to_yaml(c), ranks);
      });
    };
  });
}

void add_eval_command(CLI::App& app, Command& run) {
  CLI::App* command =
      app.add_subcommand("eval", "Score a checkpoint or a Hugging Face folder on a config's held-out items");
  command->footer(
      "Example:\n  orrery eval experiments/gsm8k_smollm2_135m.yaml --checkpoint models/SmolLM2-135M-Instruct "
      "rollout.val_n=4 rollout.val_temperature=0.6 data.val_size=50\n"
      "Reports pass@1 (mean over samples), pass@k for k = 2, 4, ... up to rollout.val_n, and the mean "
      "reward.");
  auto config = std::make_shared<std::string>();
  auto checkpoint = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  auto overrides = std::make_shared<std::vector<std::string>>();
  command->add_option("config", *config, "YAML file")->required();
  command->add_option("overrides", *overrides, "key=value pairs that replace values of the file");
  command->add_option(
      "--checkpoint", *checkpoint,
      "Checkpoint folder, run folder (its newest checkpoint), or Hugging Face folder (default: model.path)");
  command->add_flag("--json", *json, "Print one JSON object");
  command->callback([=, &run] {
    run = [=] {
      return run_on_ranks(*config, *overrides, [=](const proto::Config& c, CommWorld& ranks) {
        return run_evaluation(c, *checkpoint, *json, ranks.world(), ranks.local_ranks());
      });
    };
  });
}

void add_config_command(CLI::App& app, Command& run) {
  CLI::App* command =
      app.add_subcommand("config", "Check a config and print it with every key, and its batch sizes");
  command->footer("Example:\n  orrery config experiments/quickstart.yaml rollout.n=16 --ranks 4");
  auto config = std::make_shared<std::string>();
  auto overrides = std::make_shared<std::vector<std::string>>();
  auto ranks = std::make_shared<int>(1);
  auto faults = std::make_shared<bool>(false);
  command->add_option("config", *config, "YAML file");
  command->add_option("overrides", *overrides, "key=value pairs that replace values of the file");
  command->add_option("--ranks", *ranks, "Ranks to check it for")->check(whole_number(1));
  command->add_flag("--faults", *faults, "List the points and actions of ORRERY_FAULT (fault injection)");
  command->callback([=, &run] {
    run = [=] {
      if (*faults) {
        std::printf("%s", describe_faults().c_str());
        return kExitOk;
      }
      if (config->empty()) fail_usage("config: CONFIG is missing; see orrery config --help");
      const proto::Config resolved = load_config(*config, *overrides);
      check_config(resolved, *ranks);
      std::printf("%s", config_to_yaml(resolved).c_str());
      std::fflush(stdout);
      std::fprintf(stderr, "%s\n", describe_batch(resolved, *ranks).c_str());
      return kExitOk;
    };
  });
}

}  // namespace orrery
