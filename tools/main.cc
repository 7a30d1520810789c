// The `orrery` command: parses the command line and runs one subcommand.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/pipes.h"
#include "core/plain_error.h"
#include "core/stack.h"
#include "kernels/numerics.h"
#include "tools/ckpt_command.h"
#include "tools/commands.h"
#include "tools/usage.h"

namespace {

/// The innermost command that was named.
const CLI::App& named_command(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? app : named_command(*chosen.front());
}

int run_main(int argc, char** argv) {
  CLI::App app{
      "Orrery: reinforcement-learning post-training of language models.\n"
      "Exit codes: 0 done, 1 run-time failure, 2 bad command line, configuration, model or data,\n"
      "3 the policy that is trained has diverged.\n"
      "ORRERY_CPU_TARGET=avx2|avx512|neon restricts the instruction set (results do not change)."};
  app.name("orrery");
  app.set_version_flag("--version", ORRERY_VERSION);
  app.require_subcommand(1);
  orrery::tools::Command command;
  orrery::tools::add_train_command(app, command);
  // What follows -- in `orrery launch` are mpirun's words: CLI11 would look for our
  // options among them.
  int own = argc;
  if (argc > 1 && std::string_view(argv[1]) == "launch") {
    own = static_cast<int>(std::find(argv, argv + argc, std::string_view("--")) - argv);
  }
  orrery::tools::add_launch_command(app, command, {argv + std::min(own + 1, argc), argv + argc});
  orrery::tools::add_eval_command(app, command);
  orrery::tools::add_generate_command(app, command);
  orrery::tools::add_logprobs_command(app, command);
  orrery::tools::add_config_command(app, command);
  orrery::tools::add_bench_command(app, command);
  orrery::tools::add_ckpt_command(app, command);
  orrery::tools::add_rollouts_command(app, command);
  try {
    app.parse(orrery::tools::words_to_parse(app, own, argv));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    orrery::fail_usage("{}", orrery::tools::usage_text(named_command(app), error));
  }
  orrery::init_log(0, 1);
  if (const char* faults = std::getenv("ORRERY_FAULT")) orrery::arm_faults(faults);
  orrery::end_on_closed_pipes();
  orrery::kernels::require_cpu_support();
  if (const char* target = std::getenv("ORRERY_CPU_TARGET"))
    orrery::kernels::set_cpu_target(target);
  const int code = command();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    if (orrery::reader_is_gone(STDOUT_FILENO)) return code;  // it has what it wanted
    orrery::fail("the output could not be written (is the disk full?)");
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  return orrery::run_with_enough_stack([=] {
    try {
      return run_main(argc, argv);
    } catch (const std::exception& error) {
      const orrery::PlainError plain = orrery::plain_error(error);
      std::fprintf(stderr, "orrery: %s\n", plain.text.c_str());
      return plain.exit_code;
    }
  });
}
