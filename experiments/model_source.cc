#include "experiments/model_source.h"
#include "core/host_image.h"

#include <system_error>

#include "core/error.h"
#include "core/log.h"
#include "core/process.h"
#include "rollout/block_manager.h"
#include "storage/hf_folder.h"

namespace orrery::experiments {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

/// The folder of step_* folders that `path` has inside or is itself; empty when there
/// is none.
fs::path checkpoints_in(const fs::path& path) {
  if (is_folder(path / "checkpoints")) return path / "checkpoints";
  return storage::list_checkpoints(path).empty() ? fs::path() : path;
}

}  // namespace

ModelSource::ModelSource(const fs::path& path, const std::string& option) : folder_(path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    fail_usage("{} {}: {}; give a Hugging Face model folder, a checkpoint or a run's folder",
               option, path.string(),
               error && error != std::errc::no_such_file_or_directory ? error.message()
                                                                      : "there is no such folder");
  }
  if (!fs::is_directory(status)) {
    fail_usage(
        "{} {}: not a folder; give a Hugging Face model folder, a checkpoint or a run's folder",
        option, path.string());
  }
  // A part of a model may be enough: the tokenizer alone can print a prompt. What is
  // missing is named when it is needed.
  if (is_there(path / "config.json") || is_there(path / "tokenizer.json") ||
      orrery::storage::has_weights(path))
    return;
  if (is_there(path / storage::kManifestFile)) {
    checkpoint_.emplace(path);
    return;
  }
  const fs::path checkpoints = checkpoints_in(path);
  if (checkpoints.empty()) {
    fail_usage(
        "{} {}: neither a Hugging Face model folder (config.json is missing), "
        "a checkpoint (manifest.json) nor a run's folder (checkpoints/)",
        option, path.string());
  }
  std::string why;
  checkpoint_ = storage::latest_good_checkpoint(
      checkpoints, [&](const fs::path& folder, const std::string& reason) {
        spdlog::warn("{} is passed over: {}", folder.string(), reason);
        if (why.empty()) why = fmt::format(": {}: {}", folder.filename().string(), reason);
      });
  if (!checkpoint_) {
    fail_usage("{} {}: {} holds no good checkpoint{}", option, path.string(), checkpoints.string(),
               why.empty() ? "; has the run saved one yet?" : why);
  }
  folder_ = checkpoint_->folder();
  spdlog::info("{} {}: {}", option, path.string(), folder_.string());
}

text::Tokenizer ModelSource::tokenizer(const fs::path& chat_template_file) const {
  if (!checkpoint_)
    return text::Tokenizer::load(folder_, {.chat_template_file = chat_template_file});
  if (checkpoint_->tokenizer_folder().empty()) {
    fail_usage(
        "{} was saved without a tokenizer; write it out with orrery ckpt export and put one beside "
        "it",
        folder_.string());
  }
  return text::Tokenizer::load(checkpoint_->tokenizer_folder(),
                               {chat_template_file, checkpoint_->info().model_config_json});
}

models::ModelConfig ModelSource::config() const {
  return checkpoint_ ? checkpoint_->config() : models::load_model_config(folder_);
}

bool ModelSource::has_weights() const {
  return checkpoint_ || orrery::storage::has_weights(folder_);
}

void ModelSource::read_weights(const Context& ctx, const models::ModelConfig& config,
                               const models::ParameterTable& table, std::span<float> flat) const {
  if (checkpoint_) {
    checkpoint_->read(models::kPolicy.name, table.slices(), flat);
  } else {
    storage::load_hf_weights(ctx, folder_, config, table, flat);
  }
}

void check_vocabulary(const fs::path& folder, const text::Tokenizer& tokenizer,
                      const models::ModelConfig& model) {
  if (tokenizer.vocab_size() <= model.vocab_size) return;
  fail(
      "{}: the tokenizer has ids up to {} but the model's vocab_size is {}; "
      "they belong to different models",
      folder.string(), tokenizer.vocab_size() - 1, model.vocab_size);
}

std::unique_ptr<models::Transformer> ModelSource::transformer(const Context& ctx,
                                                              const text::Tokenizer& tokenizer,
                                                              DType compute_dtype,
                                                              int64_t max_positions) const {
  const models::ModelConfig model_config = config();
  check_vocabulary(folder_, tokenizer, model_config);
  auto model =
      std::make_unique<models::Transformer>(model_config, ctx.device, compute_dtype, max_positions);
  HostImage weights(ctx, model->write_parameters());
  read_weights(ctx, model_config, model->table(), weights.values());
  weights.commit();
  model->pack(ctx);
  return model;
}

size_t longest_sequence_bytes(const models::ModelConfig& config, DType dtype, int64_t tokens,
                              const std::string& options) {
  // One more, as a group keeps its prompt's last block.
  const size_t blocks = rollout::BlockManager::blocks_for(tokens) + 1;
  const size_t bytes = models::KvCache::bytes_per_block(config, dtype) * blocks;
  if (bytes <= physical_memory()) return bytes;
  const auto gib = [](double count) { return count / (1 << 30); };
  fail_usage(
      "the keys and values of one sequence of {} tokens take {:.1f} GiB and this machine has "
      "{:.1f}; lower {}",
      tokens, gib(bytes), gib(physical_memory()), options);
}

std::string not_a_model_hint(const fs::path& path) {
  if (is_there(path / "config.json")) return "";
  const bool one = is_there(path / storage::kManifestFile);
  if (!one && checkpoints_in(path).empty()) return "";
  return fmt::format(
      "; it is a {}: go on from it with trainer.resume={}, "
      "or write its model out with orrery ckpt export {} DIR",
      one ? "checkpoint" : "run's folder", path.string(), path.string());
}

}  // namespace orrery::experiments
