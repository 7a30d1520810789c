// The `orrery` command: parses the command line and runs one subcommand.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "core/error.h"
#include "core/error_report.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/pipes.h"
#include "core/stack.h"
#include "kernels/numerics.h"
#include "tools/ckpt_command.h"
#include "tools/commands.h"
#include "tools/usage.h"

namespace orrery::tools {
namespace {

/// The innermost command that was named.
const CLI::App& named_command(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? app : named_command(*chosen.front());
}

/// What a command line asks for.
class CommandLine {
 public:
  /// Usage Error when it makes no sense. --help and --version are answered here.
  CommandLine(int argc, char** argv);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  /// Null: it is answered.
  const Command& command() const { return command_; }

 private:
  CLI::App app_{
      "Orrery: reinforcement-learning post-training of language models.\n"
      "Exit codes: 0 done, 1 run-time failure, 2 bad command line, configuration, model or data,\n"
      "3 the policy that is trained has diverged.\n"
      "ORRERY_CPU_TARGET=best|avx2|avx512|amx|neon restricts the instruction set (results do not change)."};
  Command command_;
};

CommandLine::CommandLine(int argc, char** argv) {
  app_.name("orrery");
  app_.set_version_flag("--version", ORRERY_VERSION);
  app_.require_subcommand(1);
  add_train_command(app_, command_);
  // What follows -- in `orrery launch` are mpirun's words: CLI11 would look for our
  // options among them.
  char** const end = argv + argc;
  char** own_end = end;
  if (argc > 1 && std::string_view(argv[1]) == "launch")
    own_end = std::find(argv, end, std::string_view("--"));
  add_launch_command(app_, command_, {std::min(own_end + 1, end), end});
  add_eval_command(app_, command_);
  add_generate_command(app_, command_);
  add_logprobs_command(app_, command_);
  add_config_command(app_, command_);
  add_bench_command(app_, command_);
  add_ckpt_command(app_, command_);
  add_rollouts_command(app_, command_);
  add_audit_command(app_, command_);
  try {
    app_.parse(words_to_parse(app_, own_end - argv, argv));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) fail_usage("{}", usage_text(named_command(app_), error));
    app_.exit(error);  // --help, --version
    command_ = nullptr;
  }
}

/// Before any command.
void set_up_process() {
  init_log(0, 1);
  if (const char* faults = std::getenv("ORRERY_FAULT")) arm_faults(faults);
  end_on_closed_pipes();
  kernels::require_instruction_sets();
  const char* target = std::getenv("ORRERY_CPU_TARGET");
  if (target != nullptr && *target != '\0') kernels::set_cpu_target(target);
}

/// After it: an Error when what it printed is lost.
void finish_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  if (reader_is_gone(STDOUT_FILENO)) return;  // it has what it wanted
  fail("the output could not be written (is the disk full?)");
}

}  // namespace
}  // namespace orrery::tools

int main(int argc, char** argv) {
  using namespace orrery;
  return run_with_enough_stack([=] {
    try {
      const tools::CommandLine line(argc, argv);
      if (!line.command()) return kExitOk;
      tools::set_up_process();
      const int code = line.command()();
      tools::finish_output();
      return code;
    } catch (const std::exception& error) {
      const ErrorReport report = describe_error(error);
      std::fprintf(stderr, "orrery: %s\n", report.text.c_str());
      return report.exit_code;
    }
  });
}
