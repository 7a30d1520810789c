#include "experiments/config_files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <sstream>

#include "actors/prompt_source.h"
#include "core/error.h"
#include "core/parallel.h"
#include "experiments/checkpointing.h"
#include "experiments/device_memory.h"
#include "experiments/job.h"
#include "experiments/model_source.h"
#include "experiments/sft_data.h"
#include "storage/checkpoint.h"
#include "storage/hf_folder.h"

namespace orrery::experiments {
namespace {

namespace fs = std::filesystem;

/// The name of the program in a command line for /bin/sh, behind assignments (A=b
/// python3 x.py); empty where only the shell could tell.
std::string first_word(const std::string& command) {
  std::istringstream words(command);
  for (std::string word; words >> word;) {
    if (word.find_first_of("\"'`$\\;&|<>(){}*?[]~#!") != std::string::npos) return "";
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) return word;
  }
  return "";
}

bool is_program(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error) && ::access(path.c_str(), X_OK) == 0;
}

void check_command(const std::string& command) {
  // Words that the shell runs by itself.
  constexpr const char* kBuiltIn[] = {"cd",    "exec", "exit", "export", "set", "ulimit",
                                      "umask", "if",   "for",  "while",  "."};
  const std::string word = first_word(command);
  if (word.empty() ||
      std::find(std::begin(kBuiltIn), std::end(kBuiltIn), word) != std::end(kBuiltIn))
    return;
  if (word.find('/') != std::string::npos) {
    if (is_program(word)) return;
    fail_usage("data.external.command: {} {}, and it is what is run (in {})", word,
               fs::exists(word) ? "cannot be executed (chmod +x, or name its interpreter)"
                                : "is not there",
               fs::current_path().string());
  }
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (is_program(fs::path(folder.empty() ? "." : folder) / word)) return;
  }
  fail_usage("data.external.command: there is no program {} in PATH", word);
}

/// "3 files", "1 file".
std::string files(int count) { return fmt::format("{} file{}", count, count == 1 ? "" : "s"); }

void check_resume_path(const proto::Config& config, const models::ParameterTable& table,
                       std::string& found) {
  const std::string& resume = config.trainer().resume();
  if (resume == "auto" || resume == "off") return;
  if (!fs::is_directory(resume)) {
    fail_usage("trainer.resume: '{}' is not a folder; give auto, off, a checkpoint or a run folder",
               resume);
  }
  fs::path folder = resume;
  if (fs::is_directory(folder / "checkpoints")) {
    const auto all = storage::list_checkpoints(folder / "checkpoints");
    if (all.empty())
      fail_usage("trainer.resume: {} holds no checkpoint", (folder / "checkpoints").string());
    folder = all.back().folder;
  }
  const storage::Checkpoint checkpoint(folder, storage::Checkpoint::Verify::kOnRead);
  if (!same_parameters(checkpoint.table(), table)) {
    fail_usage(
        "{} is of another model than model.path {}; "
        "set model.path back, or use another trainer.resume",
        folder.string(), config.model().path());
  }
  found = fmt::format("{}, step {}", folder.string(), checkpoint.info().step);
}

class Report {
 public:
  void line(const char* what, const std::string& text) {
    text_ += fmt::format("{:<16}{}\n", what, text);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

void describe_prompts(const proto::Config& config, const actors::PromptSource& source, bool train,
                      Report& report) {
  const proto::DataSection& data = config.data();
  const uint64_t size = train ? source.train_size() : source.val_size();
  const int count = train ? data.train_files_size() : data.val_files_size();
  const std::string what =
      count == 0
          ? "generated"
          : fmt::format("{} prompts of {}", actors::with_thousands_separators(size), files(count));
  report.line(train ? "training data" : "held-out data",
              fmt::format("{}, the longest {} of {} tokens", what,
                          source.longest(train ? actors::Split::kTrain : actors::Split::kVal),
                          data.max_prompt_length()));
}

/// Refuses files that are not regular: the check would use up a pipe, and read a device
/// without end.
void check_regular(const proto::Config& config) {
  const auto check = [](const char* key, const auto& paths) {
    for (const std::string& path : paths) {
      std::error_code error;
      if (fs::exists(path, error) && !fs::is_regular_file(path, error) &&
          !fs::is_directory(path, error))
        fail_usage("{}: {} is not a regular file; --files can check none but those", key, path);
    }
  };
  check("data.train_files", config.data().train_files());
  check("data.val_files", config.data().val_files());
  check("sft.train_files", config.sft().train_files());
  check("sft.val_files", config.sft().val_files());
  check("sft.text_files", config.sft().text_files());
}

std::string describe(const proto::Config& config) {
  check_regular(config);
  const fs::path folder = config.model().path();
  const bool rl = config.trainer().total_training_steps() > 0;
  Report report;
  actors::PromptUse use = training_prompts(config);
  use.val = use.val || !config.data().val_files().empty();
  const models::ModelConfig model = read_job_model(config, use);
  const text::Tokenizer tokenizer =
      text::Tokenizer::load(folder, {.chat_template_file = config.model().chat_template_file()});
  check_vocabulary(folder, tokenizer, model);
  const models::ParameterTable table(model);
  if (!config.model().from_scratch()) storage::check_hf_weights(folder, model, table);
  report.line(
      "model",
      fmt::format("{}: {}, {} parameters, {}, {} positions", folder.string(), model.model_type,
                  actors::with_thousands_separators(table.parameter_count()),
                  config.model().from_scratch() ? "weights drawn from the seed"
                                                : "headers of its weights read",
                  actors::with_thousands_separators(model.max_position_embeddings)));
  report.line("tokenizer",
              fmt::format("{} ids; {}", actors::with_thousands_separators(tokenizer.vocab_size()),
                          !config.data().apply_chat_template()
                              ? std::string("no chat template is applied")
                              : "chat template of " + tokenizer.chat_template_file()));
  if (rl) {
    const Device device = config::rollout_device(config);
    check_kv_cache(config, model, device);
    const rollout::EngineConfig engine = engine_config(config, model);
    const size_t sequence = kv_cache_bytes_per_sequence(config, model, device);
    report.line("KV cache",
                takes_rest_of_device(config, device)
                    ? fmt::format("what is left of {}'s memory, {:.3g} MiB a sequence of {} tokens",
                                  device_name(device), static_cast<double>(sequence) * 0x1p-20,
                                  engine.max_model_len)
                    : fmt::format("{} GiB: {} sequences of {} tokens",
                                  static_cast<double>(engine.kv_cache_bytes) * 0x1p-30,
                                  engine.kv_cache_bytes / sequence, engine.max_model_len));
  }
  if (config.data().env() == proto::DataSection::EXTERNAL)
    check_command(config.data().external().command());
  const std::unique_ptr<actors::Environment> env = make_job_environment(config, use);
  env->check_starts();
  actors::CheckSetup setup;
  setup.ctx.threads = std::max(1, available_cpus());
  const actors::PromptSource source(config.data(), *env, tokenizer, config.seed(), setup, use);
  if (use.train_prompts > 0) describe_prompts(config, source, /*train=*/true, report);
  if (use.val) describe_prompts(config, source, /*train=*/false, report);
  if (config.sft().total_training_steps() > 0) {
    const SftData sft(config, *env, source, tokenizer, setup);
    report.line("SFT data",
                sft.size() == 0
                    ? std::string("generated demonstrations")
                    : fmt::format("{} examples", actors::with_thousands_separators(sft.size())));
    if (sft.val() != nullptr)
      report.line("SFT held-out", fmt::format("{} examples", actors::with_thousands_separators(
                                                                 sft.val()->examples().size())));
  }
  std::string resumed;
  check_resume_path(config, table, resumed);
  if (!resumed.empty()) report.line("resume", resumed);
  return report.text();
}

}  // namespace

std::string describe_files(const proto::Config& config) {
  std::string text;
  as_usage_errors([&] { text = describe(config); });
  return text;
}

}  // namespace orrery::experiments
