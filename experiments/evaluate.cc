#include "experiments/evaluate.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/pipes.h"
#include "core/timer.h"
#include "experiments/agreement.h"
#include "experiments/checkpointing.h"
#include "experiments/job.h"
#include "experiments/rl_stage.h"
#include "experiments/together.h"
#include "experiments/validation_metrics.h"
#include "models/checkpoint.h"

namespace orrery {
namespace {

/// The checkpoint that `path` means: itself, or a run folder's newest good one; nothing for a Hugging Face
/// folder.
std::filesystem::path find_checkpoint(const std::filesystem::path& path) {
  if (std::filesystem::exists(path / kManifestFile)) return path;
  if (std::filesystem::is_directory(path / "checkpoints")) {
    const auto found =
        latest_good_checkpoint(path / "checkpoints", [](const auto& folder, const std::string& reason) {
          spdlog::error("checkpoint {} cannot be used and is passed over: {}", folder.string(), reason);
        });
    if (!found) fail("{} holds no good checkpoint", (path / "checkpoints").string());
    return found->folder();
  }
  if (!std::filesystem::exists(path / "config.json")) {
    fail_usage(
        "--checkpoint {}: neither a checkpoint (manifest.json), a run folder (checkpoints/) nor a Hugging "
        "Face folder "
        "(config.json)",
        path.string());
  }
  return {};
}

}  // namespace

int run_evaluation(const proto::Config& given, const std::string& checkpoint, bool json, Communicator& world,
                   int local_ranks) {
  ignore_closed_pipes();  // its output comes last; environments may have pipes of their own
  proto::Config config = given;
  config.mutable_data()->clear_train_files();  // held-out items only
  config.mutable_sft()->clear_text_files();
  std::filesystem::path found;
  together(world, [&] {
    if (checkpoint.empty() && config.model().from_scratch()) {
      fail_usage("model.from_scratch is set, so there is nothing to evaluate without --checkpoint");
    }
    // Rank 0 chooses: a run that lives may save or remove one while the ranks look.
    if (world.rank() == 0 && !checkpoint.empty()) found = find_checkpoint(checkpoint);
  });
  found = world.all_gather_bytes(found.string()).front();
  if (found.empty() && !checkpoint.empty()) {
    config.mutable_model()->set_path(checkpoint);
    config.mutable_model()->set_from_scratch(false);
  }
  uint64_t version = 0;
  const std::unique_ptr<Job> job = make_job(config, world, local_ranks, {0, true}, nullptr);
  if (!found.empty()) {
    agree_on_checkpoint(world, found);
    together(world, [&] {
      const Checkpoint opened(found);
      if (!same_parameters(opened.table(), job->model().table())) {
        fail_usage("{} is of another model than model.path {}", found.string(), config.model().path());
      }
      version = static_cast<uint64_t>(opened.info().step);
      opened.read(0, opened.flat_size(), job->model().parameters(), {}, {});
      job->model().pack(job->ctx);
    });
  }
  RlStage stage(*job, nullptr);
  stage.publish(version);
  const Timer timer;
  const auto samples = stage.generate_validation(0);
  // No handler is installed here: a signal ends an evaluation, which has nothing to save.
  ORRERY_CHECK(samples, "an evaluation was asked to stop");
  const std::vector<Group>& groups = *samples;
  const double seconds = timer.seconds();
  if (world.rank() != 0) return kExitOk;

  const int n = static_cast<int>(config.rollout().val_n());
  Summary rewards, tokens, correct;
  std::map<int, Summary> pass;
  for (const Group& group : groups) {
    int right = 0;
    for (const Trajectory& t : group.samples) {
      rewards.add(t.reward);
      tokens.add(static_cast<double>(t.tokens.size()));
      const auto it = t.reward_extra.find("correct");
      const bool good = it != t.reward_extra.end() ? it->second > 0.5 : t.reward >= 1.0f;
      right += good ? 1 : 0;
      correct.add(good ? 1 : 0);
    }
    pass[1].add(pass_at_k(n, right, 1));
    for (const int k : subset_sizes(n)) pass[k].add(pass_at_k(n, right, k));
  }
  const double total_tokens = tokens.mean() * static_cast<double>(tokens.count());
  nlohmann::ordered_json result = {{"checkpoint", !found.empty() ? found.string() : config.model().path()},
                                   {"prompts", groups.size()},
                                   {"samples_per_prompt", n},
                                   {"temperature", config.rollout().val_temperature()},
                                   {"mean_reward", rewards.mean()}};
  for (const auto& [k, summary] : pass) result[fmt::format("pass@{}", k)] = summary.mean();
  result["response_length_mean"] = tokens.mean();
  result["seconds"] = seconds;
  result["tokens_per_s"] = total_tokens / std::max(seconds, 1e-9);
  if (json) {
    std::printf("%s\n", result.dump().c_str());
  } else {
    for (const auto& [key, value] : result.items()) {
      std::printf("%-22s %s\n", key.c_str(),
                  value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
    }
  }
  return kExitOk;
}

}  // namespace orrery
