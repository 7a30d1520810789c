#include "experiments/evaluate.h"
#include "core/host_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/pipes.h"
#include "core/span.h"
#include "experiments/agreement.h"
#include "experiments/checkpointing.h"
#include "experiments/generation.h"
#include "experiments/job.h"
#include "experiments/on_all_ranks.h"
#include "experiments/rollout_records.h"
#include "experiments/validation_metrics.h"
#include "launch/stop_signal.h"
#include "storage/checkpoint.h"

namespace orrery::experiments {
namespace {

/// The checkpoint that `path` means: itself, or a run folder's newest good one; nothing
/// for a Hugging Face folder.
std::filesystem::path find_checkpoint(const std::filesystem::path& path) {
  if (std::filesystem::exists(path / storage::kManifestFile)) return path;
  if (std::filesystem::is_directory(path / "checkpoints")) {
    const auto found = storage::latest_good_checkpoint(
        path / "checkpoints", [](const auto& folder, const std::string& reason) {
          spdlog::error("checkpoint {} cannot be used and is passed over: {}", folder.string(),
                        reason);
        });
    if (!found) fail("{} holds no good checkpoint", (path / "checkpoints").string());
    return found->folder();
  }
  if (!std::filesystem::exists(path / "config.json")) {
    fail_usage(
        "--checkpoint {}: neither a checkpoint (manifest.json), "
        "a run folder (checkpoints/) nor a Hugging Face folder (config.json)",
        path.string());
  }
  return {};
}

/// Where the samples go: `out`, or the file that a symbolic link means.
std::filesystem::path output_path(const std::string& out) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::weakly_canonical(out, error);
  return error ? std::filesystem::path(out) : path;
}

/// Refuses what could not be written, or is better not written over, before an hour of
/// generating.
void check_output(const std::string& out, const proto::Config& config,
                  const std::string& config_file, const std::string& checkpoint) {
  const std::filesystem::path path = output_path(out);
  std::error_code error;
  if (out.empty() || out.back() == '/' || std::filesystem::is_directory(path, error))
    fail_usage("--out \"{}\" is no file's name; name a file, as in --out samples.jsonl", out);
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (!std::filesystem::is_directory(folder, error))
    fail_usage("--out {}: there is no folder {}; make it first", out, folder.string());
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error))
    fail_usage("--out {} is not a regular file; give a file that may be replaced", out);
  std::vector<std::string> inputs = {config_file, config.data().prompt_template_file(),
                                     config.model().chat_template_file()};
  for (const auto* files :
       {&config.data().train_files(), &config.data().val_files(), &config.sft().text_files(),
        &config.sft().train_files(), &config.sft().val_files()}) {
    inputs.insert(inputs.end(), files->begin(), files->end());
  }
  std::istringstream command(config.data().external().command());
  inputs.insert(inputs.end(), std::istream_iterator<std::string>(command), {});
  for (const std::string& input : inputs) {
    if (!input.empty() && std::filesystem::equivalent(path, input, error))
      fail_usage("--out {} would replace {}, which the config reads; give another name", out,
                 input);
  }
  for (const std::string& model : {config.model().path(), checkpoint}) {
    if (!model.empty() && std::filesystem::exists(path, error) &&
        std::filesystem::equivalent(folder, model, error))
      fail_usage("--out {} would replace a file of {}; give another name", out, model);
  }
  const std::string temporary = path.string() + ".tmp";  // as the write will begin
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) fail_usage("--out {}: cannot write {}: {}", out, temporary, std::strerror(errno));
  ::close(file);
  ::unlink(temporary.c_str());
}

/// A line a sample.
std::string samples_as_lines(std::span<const rollout::Group> groups,
                             const text::Tokenizer& tokenizer) {
  const std::vector<std::string> prompts = prompt_texts(groups, tokenizer);
  std::string lines;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const rollout::Trajectory& sample : groups[g].samples) {
      nlohmann::ordered_json object = sample_to_json(sample, &prompts[g]);
      object["correct"] = is_correct(sample);
      lines += json_line(object) + "\n";
    }
  }
  return lines;
}

/// The model that is evaluated: config as it is read, and the checkpoint, if it is one.
struct Evaluated {
  proto::Config config;
  std::filesystem::path checkpoint;  ///< empty: a Hugging Face folder
};

/// Collective. Usage Error before anything is generated when something cannot be.
Evaluated choose_model(const proto::Config& given, const EvaluationOptions& options,
                       comm::Communicator& world) {
  const std::string& named = options.checkpoint;
  Evaluated chosen{given, {}};
  proto::Config& config = chosen.config;
  config.mutable_data()->clear_train_files();  // held-out items only
  config.mutable_sft()->clear_text_files();
  on_all_ranks(world, [&] {
    if (world.rank() == 0 && options.out)
      check_output(*options.out, given, options.config_file, named);
    if (named.empty() && config.model().from_scratch()) {
      fail_usage("model.from_scratch is set, so there is nothing to evaluate without --checkpoint");
    }
    // Rank 0 chooses: a run that lives may save or remove one while the ranks look.
    if (world.rank() == 0 && !named.empty()) chosen.checkpoint = find_checkpoint(named);
  });
  chosen.checkpoint = world.all_gather_bytes(chosen.checkpoint.string()).front();
  if (chosen.checkpoint.empty() && !named.empty()) {
    config.mutable_model()->set_path(named);
    config.mutable_model()->set_from_scratch(false);
  }
  return chosen;
}

/// Collective. The checkpoint's weights, in place of those that the job was made with.
/// Returns their version.
int64_t load_checkpoint(const std::filesystem::path& folder, Job& job) {
  agree_on_checkpoint(job.world, folder);
  int64_t version = 0;
  on_all_ranks(job.world, [&] {
    const storage::Checkpoint checkpoint(folder);
    if (!same_parameters(checkpoint.table(), job.model().table())) {
      fail_usage("{} is of another model than model.path {}", folder.string(),
                 job.config.model().path());
    }
    version = checkpoint.info().step;
    HostImage weights(job.ctx, job.model().write_parameters());
    checkpoint.read(models::kPolicy.name, job.model().table().slices(), weights.values());
    weights.commit();
    job.model().pack(job.ctx);
  });
  return version;
}

/// What the samples say, `n` asked for of each prompt.
struct Scores {
  Summary rewards, tokens;
  std::map<int, Summary> pass;
  int64_t wrong = 0;

  Scores(Span<const rollout::Group> groups, int n) {
    for (const rollout::Group& group : groups) {
      int right = 0;
      for (const rollout::Trajectory& t : group.samples) {
        rewards.add(t.reward);
        tokens.add(std::ssize(t.tokens));
        right += is_correct(t) ? 1 : 0;
        wrong += is_correct(t) ? 0 : 1;
      }
      const int have = std::ssize(group.samples);
      pass[1].add(pass_at_k(have, right, 1));
      for (const int k : subset_sizes(n)) {
        if (k <= have) pass[k].add(pass_at_k(have, right, k));
      }
    }
  }
};

void print_summary(const nlohmann::ordered_json& summary, const EvaluationOptions& options,
                   const Scores& scores, bool written) {
  if (options.json) {
    std::printf("%s\n",
                summary.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return;
  }
  for (const auto& [key, value] : summary.items()) {
    std::printf("%-22s %s\n", key.c_str(),
                value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
  }
  if (written) {
    const std::string line =
        fmt::format("{} of {} answers are wrong; to see them: grep '\"correct\":false' {}\n",
                    scores.wrong, scores.rewards.count(), *options.out);
    std::fputs(line.c_str(), stdout);
  }
}

}  // namespace

int run_evaluation(const proto::Config& given, const EvaluationOptions& options,
                   comm::Communicator& world, LocalRank local) {
  ignore_closed_pipes();  // its output comes last; environments may have pipes of their own
  const Evaluated chosen = choose_model(given, options, world);
  const proto::Config& config = chosen.config;
  const std::unique_ptr<Job> job = make_job(config, world, local, {0, true}, nullptr);
  const int64_t version = chosen.checkpoint.empty() ? 0 : load_checkpoint(chosen.checkpoint, *job);
  Generation generation(*job, nullptr, /*steps_before=*/0, launch::stop_requested);
  generation.set_weight_version(version);
  const auto samples = generation.run(generation.val_batch(0));
  // No handler is installed here: a signal ends an evaluation, which has nothing to
  // save.
  ORRERY_CHECK(samples, "an evaluation was asked to stop");
  if (world.rank() != 0) return kExitOk;

  // Written first, so that the summary can say so; but an hour's scores are not lost to
  // a full disk.
  std::exception_ptr not_written;
  if (options.out) {
    try {
      write_file_atomic(output_path(*options.out),
                        samples_as_lines(samples->groups, job->tokenizer));
    } catch (const Error&) {
      not_written = std::current_exception();
    }
  }
  const bool written = options.out && !not_written;
  const int n = config.rollout().val_n();
  const Scores scores(samples->groups, n);
  const double tokens = scores.tokens.mean() * scores.tokens.count();
  nlohmann::ordered_json summary = {
      {"checkpoint",
       chosen.checkpoint.empty() ? config.model().path() : chosen.checkpoint.string()},
      {"prompts", samples->groups.size()},
      {"samples_per_prompt", n},
      {"temperature", config.rollout().val_temperature()},
      {"mean_reward", scores.rewards.mean()}};
  if (config.data().env() == proto::DataSection::EXTERNAL)
    summary["dropped_samples"] = samples->dropped.samples;
  for (const auto& [k, pass] : scores.pass) summary[fmt::format("pass@{}", k)] = pass.mean();
  summary["response_length_mean"] = scores.tokens.mean();
  summary["seconds"] = samples->seconds;
  summary["tokens_per_s"] = tokens / std::max(samples->seconds, 1e-9);
  summary["wrong"] = scores.wrong;
  if (written) summary["out"] = *options.out;
  print_summary(summary, options, scores, written);
  if (not_written) std::rethrow_exception(not_written);
  return kExitOk;
}

}  // namespace orrery::experiments
