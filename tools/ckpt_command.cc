#include "tools/ckpt_command.h"

#include <memory>
#include <string>

#include "core/error.h"
#include "tools/ckpt_actions.h"
#include "tools/commands.h"

namespace orrery::tools {
namespace {

using Action = void (*)(const CkptOptions&);

/// A subcommand with its own options; `set_up` adds the positional ones.
template <class SetUp>
void add(CLI::App& parent, Command& run, const std::string& name, const std::string& description,
         const std::string& example, Action action, SetUp&& set_up) {
  CLI::App* sub = parent.add_subcommand(name, description);
  auto options = std::make_shared<CkptOptions>();
  set_up(*sub, *options);
  sub->add_flag("--json", options->json, "print JSON");
  sub->footer("Example:\n  orrery ckpt " + example);
  sub->callback([&run, options, action] {
    run = [options, action] {
      action(*options);
      return kExitOk;
    };
  });
}

constexpr const char* kCheckpointHelp =
    "a checkpoint folder, or a run folder: its newest good checkpoint";

}  // namespace

void add_ckpt_command(CLI::App& app, Command& run) {
  CLI::App* ckpt =
      app.add_subcommand("ckpt", "List, inspect, compare, check and convert checkpoints");
  ckpt->require_subcommand(1);
  ckpt->footer(
      "Example:\n"
      "  orrery ckpt ls runs/quickstart\n"
      "\n"
      "Exit codes: 0 ok, 1 failure (a bad checkpoint too), 2 bad usage.");
  const auto one = [](CLI::App& sub, CkptOptions& o) {
    sub.add_option("CHECKPOINT", o.path, kCheckpointHelp)->required();
  };

  add(*ckpt, run, "ls", "List a run's checkpoints: step, size, time, reward", "ls runs/quickstart",
      ckpt_list, [](CLI::App& sub, CkptOptions& o) {
        sub.add_option("RUN_DIR", o.path, "a run folder")->required();
      });
  add(*ckpt, run, "show", "Show a checkpoint's configuration, state, modules and tensors",
      "show runs/quickstart/checkpoints/step_000100", ckpt_show, one);
  add(*ckpt, run, "verify",
      "Check the manifest, and the size, SHA-256 and slices of every file (of a run folder: "
      "its newest checkpoint)",
      "verify runs/quickstart", ckpt_verify, one);
  add(*ckpt, run, "diff",
      "Compare two checkpoints tensor by tensor (exit code 0 whether or not they differ)",
      "diff run_a/checkpoints/step_000100 run_b/checkpoints/step_000100", ckpt_diff,
      [](CLI::App& sub, CkptOptions& o) {
        sub.add_option("A", o.path, kCheckpointHelp)->required();
        sub.add_option("B", o.other, kCheckpointHelp)->required();
      });
  add(*ckpt, run, "hash",
      "One SHA-256 over step, weights and moments, whatever the number of ranks that saved",
      "hash runs/quickstart", ckpt_hash, [&](CLI::App& sub, CkptOptions& o) {
        one(sub, o);
        sub.add_option("--module", o.module, "whose weights and moments")->capture_default_str();
      });
  add(*ckpt, run, "export", "Write a checkpoint's model as a Hugging Face folder",
      "export --format hf --dtype bf16 runs/quickstart exported", ckpt_export,
      [&](CLI::App& sub, CkptOptions& o) {
        one(sub, o);
        sub.add_option("OUT", o.other, "the folder to create")->required();
        sub.add_option("--format", o.format, "hf")->check(one_of({"hf"}))->capture_default_str();
        sub.add_option("--dtype", o.dtype, "f32, bf16 or f16")
            ->check(one_of({"f32", "bf16", "f16"}))
            ->capture_default_str();
      });
  add(*ckpt, run, "import", "Make a step-0 checkpoint, moments zero, of a Hugging Face folder",
      "import models/my-model runs/new/checkpoints/step_000000", ckpt_import,
      [](CLI::App& sub, CkptOptions& o) {
        sub.add_option("HF_DIR", o.path, "a Hugging Face model folder")->required();
        sub.add_option("OUT", o.other, "the checkpoint folder to create")->required();
      });
  add(*ckpt, run, "convert",
      "Write a checkpoint of format version 2, which older programs saved, or a whole run with its "
      "checkpoints, in this program's format; OLD stays as it is",
      "convert runs/quickstart runs/quickstart_v3", ckpt_convert,
      [](CLI::App& sub, CkptOptions& o) {
        sub.add_option("OLD", o.path, "a checkpoint folder, or a run folder")->required();
        sub.add_option("NEW", o.other, "the folder to create, of the same kind")->required();
      });
}

}  // namespace orrery::tools
