#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "experiments/rollout_records.h"
#include "experiments/visible_text.h"
#include "launch/run_folder.h"
#include "rollout/rollout_file.h"
#include "storage/checkpoint.h"
#include "tools/commands.h"
#include "tools/rollout_filter.h"

namespace orrery::tools {
namespace {

namespace fs = std::filesystem;

struct RolloutsOptions {
  std::vector<std::string> paths;
  std::optional<std::string> reward, step, grep, stage;
  std::optional<int64_t> prompt_index;
  int64_t limit = 0;
  bool json = false;
};

/// The files that `path` means. Usage Error when there are none.
std::vector<launch::RolloutEntry> find_files(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) fail_usage("{}: no such file or folder", path);
  if (!fs::is_directory(status)) {
    if (!fs::is_regular_file(status)) fail_usage("{} is not a regular file", path);
    return {{path, -1, false}};
  }
  if (fs::exists(fs::path(path) / storage::kManifestFile, error)) {
    fail_usage(
        "{} is a checkpoint, which holds weights and no samples (orrery ckpt show tells of it); "
        "give the run's folder, or its rollouts/",
        path);
  }
  const fs::path inside = fs::path(path) / "rollouts";
  std::vector<launch::RolloutEntry> files =
      launch::list_rollouts(fs::is_directory(inside, error) ? inside : fs::path(path));
  if (files.empty()) {
    fail_usage(
        "{} holds no rollouts (step_*.h5, val_step_*.h5): "
        "a run writes them every trainer.rollout_save_freq RL steps, and at validations",
        path);
  }
  return files;
}

/// "step 606 (grpo 6)"; of a validation "validation at step 606 (grpo 6)".
std::string file_title(const rollout::RolloutFile& file) {
  const std::string step =
      fmt::format("step {} ({} {})", file.step, rollout::kRlStage, file.stage_step);
  if (file.stage == rollout::kRlStage) return step;
  return fmt::format("{} at {}",
                     file.stage == rollout::kValidationStage
                         ? "validation"
                         : experiments::visible_text(file.stage),
                     step);
}

/// A block of lines, an empty one at the end.
std::string sample_block(const rollout::RolloutFile& file, const rollout::Group& group,
                         const rollout::Trajectory& sample, const std::string* prompt_text) {
  constexpr size_t kIndent = 12;
  std::string block =
      fmt::format("{} | prompt {} | sample {} | reward {:.6g} | {} | {} tokens | {}",
                  file_title(file), sample.prompt_index, sample.sample_index, sample.reward,
                  rollout::finish_reason_name(sample.finish_reason), sample.tokens.size(),
                  experiments::visible_text(sample.data_source));
  if (!sample.data_file.empty())
    block += fmt::format(" | {}:{}", experiments::visible_text(sample.data_file), sample.data_row);
  block += '\n';
  const auto add = [&](const char* name, const std::string& text) {
    block +=
        fmt::format("  {:<{}}{}\n", name, kIndent - 2, experiments::visible_text(text, kIndent));
  };
  std::string extra;
  for (const auto& [name, value] : sample.reward_extra)
    extra += fmt::format("{}{} {:.6g}", extra.empty() ? "" : ", ", name, value);
  if (!extra.empty()) add("parts", extra);
  if (group.dropped > 0)
    add("dropped", fmt::format("{} other sample(s) of this prompt", group.dropped));
  if (!sample.truth.empty()) add("truth", sample.truth);
  if (prompt_text != nullptr) {
    add("prompt", *prompt_text);
  } else {
    add("prompt",
        fmt::format("({} tokens; the file holds no text of them)", sample.prompt_tokens.size()));
  }
  add("response", sample.response_text);
  return block + '\n';
}

std::string sample_line(const rollout::RolloutFile& file, const rollout::Trajectory& sample,
                        const std::string* prompt_text) {
  nlohmann::ordered_json row = {
      {"step", file.step}, {"stage", file.stage}, {"stage_step", file.stage_step}};
  row.update(experiments::sample_to_json(sample, prompt_text));
  row["prompt_tokens"] = sample.prompt_tokens;
  row["tokens"] = sample.tokens;
  row["logprobs"] = sample.logprobs;
  row["entropies"] = sample.entropies;
  row["loss_mask"] = sample.loss_mask;
  return experiments::json_line(row) + '\n';
}

class Listing {
 public:
  explicit Listing(const RolloutsOptions& options) : options_(options) {
    if (options.reward) filter_.reward = parse_reward_filter(*options.reward);
    if (options.step) filter_.step = parse_step_filter(*options.step);
    if (options.prompt_index) filter_.prompt_index = *options.prompt_index;
    if (options.grep && options.grep->empty())
      fail_usage("--grep is empty; give a text to look for");
    filter_.grep = options.grep;
    if (options.stage && *options.stage != rollout::kRlStage &&
        *options.stage != rollout::kValidationStage)
      fail_usage("--stage {}: give {} or {}", *options.stage, rollout::kRlStage,
                 rollout::kValidationStage);
    filter_.stage = options.stage;
    for (const std::string& path : options.paths) {
      if (is_checksum_of_another(path)) continue;
      for (launch::RolloutEntry& file : find_files(path)) {
        ++found_;
        // A name that says another step need not be opened.
        const bool named = file.step >= 0;
        if (named && filter_.step && !filter_.step->matches(file.step)) continue;
        if (named && filter_.stage &&
            (*filter_.stage == rollout::kValidationStage) != file.validation)
          continue;
        files_.push_back(std::move(file));
      }
    }
  }

  int run() {
    warn_of_missing_checksums();
    int code = kExitOk;
    for (const launch::RolloutEntry& file : files_) {
      try {
        show(rollout::read_rollout_file(file.path, rollout::MissingChecksum::kReadInChildFirst));
      } catch (const Error& error) {
        if (files_.size() == 1) throw;
        std::fprintf(stderr, "orrery: %s\n", error.what());  // the others can be read
        code = error.exit_code();
      }
      if (is_done()) break;
    }
    if (shown_ == 0 && code == kExitOk) {
      const std::string line =
          fmt::format("orrery: no sample matches; {} in {} of {} file(s) were looked at\n", seen_,
                      files_.size(), found_);
      std::fputs(line.c_str(), stderr);
    }
    return code;
  }

 private:
  /// `rollouts/*` names files and their checksums.
  bool is_checksum_of_another(const std::string& path) const {
    return std::ranges::any_of(options_.paths, [&](const std::string& other) {
      return rollout::rollout_checksum_path(other) == path;
    });
  }

  bool is_done() const {
    return (options_.limit > 0 && shown_ == options_.limit) || std::ferror(stdout) != 0;
  }

  void warn_of_missing_checksums() const {
    size_t missing = 0;
    std::string first;
    for (const launch::RolloutEntry& file : files_) {
      std::error_code error;
      if (fs::exists(rollout::rollout_checksum_path(file.path), error)) continue;
      if (missing++ == 0) first = file.path.string();
    }
    if (missing == 0) return;
    spdlog::warn("{}{} no .sha256 beside it: whether the file is as it was written cannot be told",
                 first,
                 missing == 1 ? " has" : fmt::format(" and {} more file(s) have", missing - 1));
  }

  void show(const rollout::RolloutFile& file) {
    const bool file_matches = filter_.matches(file);
    for (size_t g = 0; g < file.groups.size(); ++g) {
      const rollout::Group& group = file.groups[g];
      const std::string* prompt_text = file.prompt_texts.empty() ? nullptr : &file.prompt_texts[g];
      for (const rollout::Trajectory& sample : group.samples) {
        ++seen_;
        if (!file_matches || !filter_.matches(sample, prompt_text)) continue;
        const std::string text = options_.json ? sample_line(file, sample, prompt_text)
                                               : sample_block(file, group, sample, prompt_text);
        std::fwrite(text.data(), 1, text.size(), stdout);
        ++shown_;
        if (is_done()) return;
      }
    }
  }

  const RolloutsOptions& options_;
  RolloutFilter filter_;
  std::vector<launch::RolloutEntry> files_;  // to be opened
  size_t found_ = 0;
  int64_t seen_ = 0, shown_ = 0;
};

}  // namespace

void add_rollouts_command(CLI::App& app, Command& run) {
  CLI::App* command =
      app.add_subcommand("rollouts", "Show samples that a run has kept, and look among them");
  command->footer(
      "Example:\n"
      "  orrery rollouts runs/quickstart --step 800 --limit 10\n"
      "  orrery rollouts runs/quickstart --stage val --reward 0\n"
      "  orrery rollouts runs/quickstart/rollouts/step_000800.h5 --reward '<0.5' --grep 'the "
      "answer is' --json\n"
      "Of a sample: step, prompt, sample, reward, finish reason, tokens, source, "
      "file:row of the data; then parts\n"
      "of the reward, truth, prompt and response, with control characters as \\x1b. "
      "All filters given must match.");
  auto options = std::make_shared<RolloutsOptions>();
  command
      ->add_option("path", options->paths,
                   "Run folder, folder of rollouts, or HDF5 files of samples")
      ->required();
  command->add_option("--reward", options->reward,
                      "Samples of this reward; or '<0.5', '<=0.5', '>0.5', '>=0.5', '!=0'");
  command->add_option("--step", options->step,
                      "Samples of this step of the run, or of a range: 600..800, 600..");
  command->add_option("--grep", options->grep,
                      "Samples with this text in prompt, response or truth");
  command
      ->add_option("--prompt-index", options->prompt_index,
                   "Samples of this prompt of the data order")
      ->check(whole_number(0));
  command->add_option("--stage", options->stage,
                      "grpo: what RL steps learned from; val: validations (default: both)");
  command->add_option("--limit", options->limit, "Samples to show (0: all)")
      ->check(whole_number(0));
  command->add_flag("--json", options->json, "Print JSON lines, with token ids and log-probs");
  command->callback([=, &run] { run = [=] { return Listing(*options).run(); }; });
}

}  // namespace orrery::tools
