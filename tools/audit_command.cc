#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/parallel.h"
#include "core/team.h"
#include "core/timer.h"
#include "experiments/audit.h"
#include "tools/commands.h"

namespace orrery::tools {
namespace {

struct AuditCommand {
  std::string path, checkpoint;
  int64_t samples = 0;
  int threads = 0;
  bool json = false;
};

std::string place_text(const experiments::AuditFinding& finding) {
  return fmt::format("prompt {} sample {} token {}", finding.prompt_index, finding.sample_index,
                     finding.position);
}

int run_audit(const AuditCommand& options) {
  const rollout::RolloutFile file =
      rollout::read_rollout_file(options.path, rollout::MissingChecksum::kReadInChildFirst);
  const experiments::ModelSource source(options.checkpoint, "--checkpoint");
  const Timer timer;
  experiments::AuditOptions how;
  how.samples = options.samples;
  how.threads =
      options.threads > 0 ? std::min(options.threads, max_team_members()) : available_cpus();
  double told = 0;
  how.progress = [&](int64_t done, int64_t all) {
    constexpr double kEverySeconds = 10;
    if (timer.seconds() < told + kEverySeconds) return;
    told = timer.seconds();
    spdlog::info("{} of {} samples", done, all);
  };
  const experiments::AuditReport report = experiments::audit(file, options.path, source, how);
  const double seconds = timer.seconds();
  const bool confirmed = report.differing == 0;
  if (options.json) {
    nlohmann::ordered_json row = {{"file", options.path},
                                  {"checkpoint", source.name()},
                                  {"numerics", report.numerics},
                                  {"weights", file.drawn->weights},
                                  {"samples", report.samples},
                                  {"tokens", report.tokens},
                                  {"not_drawn", report.not_drawn},
                                  {"differing", report.differing},
                                  {"confirmed", confirmed},
                                  {"seconds", seconds},
                                  {"first", nullptr}};
    if (report.first) {
      row["first"] = {{"prompt_index", report.first->prompt_index},
                      {"sample_index", report.first->sample_index},
                      {"position", report.first->position},
                      {"what", report.first->what}};
    }
    std::printf("%s\n", row.dump().c_str());
  } else if (confirmed) {
    const std::string others =
        report.not_drawn > 0
            ? fmt::format("; {} tokens are the environment's and were not drawn", report.not_drawn)
            : "";
    std::printf("%s\n", fmt::format("confirmed: {} samples, {} tokens drawn and scored again to "
                                    "the bit ({}, {:.0f} tokens/s){}",
                                    report.samples, report.tokens, report.numerics,
                                    static_cast<double>(report.tokens) / seconds, others)
                            .c_str());
  }
  if (confirmed) return kExitOk;
  fail("{}: {} of {} tokens are not what {} gives; first {}: {}", options.path, report.differing,
       report.tokens, source.name(), place_text(*report.first), report.first->what);
}

}  // namespace

void add_audit_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand(
      "audit", "Draw and score a file's samples again from a checkpoint, and compare to the bit");
  command->footer(
      "Works on any CPU, whatever device drew the samples: the file names the class of numerics.\n"
      "Compared are tokens, log-probs, entropies and weight versions. Rewards, texts and truths are\n"
      "not: the file's .sha256 is what holds those.\n"
      "A file of RL step N was drawn with the weights of the step before, one of a validation\n"
      "with those of its own step.\n"
      "Exit code 0: every token is confirmed; 1: some are not, the first is named.\n"
      "Example:\n  orrery audit runs/x/rollouts/val_step_000123.h5 "
      "--checkpoint runs/x/checkpoints/step_000123");
  auto options = std::make_shared<AuditCommand>();
  command->add_option("rollouts", options->path, "File of a run's rollouts/")->required();
  command
      ->add_option("--checkpoint", options->checkpoint,
                   "With the weights that drew the samples: a checkpoint, a run's folder, or a "
                   "Hugging Face folder")
      ->required();
  command
      ->add_option("--samples", options->samples,
                   "Audit so many samples, spread evenly over the file (default: all)")
      ->check(whole_number(1));
  command
      ->add_option("--threads", options->threads, "CPU threads (default: all this process may use)")
      ->check(whole_number(0, 4096));
  command->add_flag("--json", options->json, "Print the result as one JSON object");
  command->callback([=, &run] { run = [=] { return run_audit(*options); }; });
}

}  // namespace orrery::tools
