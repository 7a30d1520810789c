#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "rollout/rollout_file.h"
#include "tools/commands.h"

namespace orrery {
namespace {

int show(const std::string& path, int64_t limit, bool json) {
  const RolloutFile file = read_rollout_file(path);
  int64_t shown = 0;
  for (const Group& group : file.groups) {
    for (const Trajectory& t : group.samples) {
      if (limit > 0 && shown++ == limit) return kExitOk;
      const nlohmann::ordered_json row = {{"step", file.step},
                                          {"stage", "grpo"},
                                          {"stage_step", file.stage_step},
                                          {"prompt_index", t.prompt_index},
                                          {"sample_index", t.sample_index},
                                          {"data_source", t.data_source},
                                          {"reward", t.reward},
                                          {"reward_extra", t.reward_extra},
                                          {"finish_reason", finish_reason_name(t.finish_reason)},
                                          {"prompt_tokens", t.prompt_tokens},
                                          {"tokens", t.tokens},
                                          {"logprobs", t.logprobs},
                                          {"entropies", t.entropies},
                                          {"loss_mask", t.loss_mask},
                                          {"response", t.response_text}};
      if (json) {
        std::printf("%s\n", row.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
      } else {
        std::printf("prompt %-8llu sample %-4u reward %-8.4g %-7s %5zu tokens | %s\n",
                    static_cast<unsigned long long>(t.prompt_index), t.sample_index,
                    static_cast<double>(t.reward), finish_reason_name(t.finish_reason), t.tokens.size(),
                    t.response_text.c_str());
      }
    }
  }
  return kExitOk;
}

}  // namespace

void add_rollouts_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand("rollouts", "Show the samples of a rollouts/step_*.h5 file");
  command->footer("Example:\n  orrery rollouts runs/quickstart/rollouts/step_000800.h5 --limit 10");
  auto path = std::make_shared<std::string>();
  auto limit = std::make_shared<int64_t>(0);
  auto json = std::make_shared<bool>(false);
  command->add_option("file", *path, "HDF5 file of samples")->required();
  command->add_option("--limit", *limit, "Samples to show (0: all)")->check(whole_number(0));
  command->add_flag("--json", *json, "Print JSON lines");
  command->callback([=, &run] { run = [=] { return show(*path, *limit, *json); }; });
}

}  // namespace orrery
