// What `--model` names: a Hugging Face folder, a checkpoint, or a run's folder, which
// stands for its newest good checkpoint. A checkpoint's weights come with the
// tokenizer's files beside them and with the model's config in its manifest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/context.h"
#include "core/dtype.h"
#include "models/config.h"
#include "models/parameters.h"
#include "models/transformer.h"
#include "storage/checkpoint.h"
#include "text/tokenizer.h"

namespace orrery::experiments {

class ModelSource {
 public:
  /// Throws a usage Error that begins with `option` when `path` is none of the three,
  /// or holds no good checkpoint. Logs which checkpoint is taken from a run's folder,
  /// and which ones are passed over.
  ModelSource(const std::filesystem::path& path, const std::string& option);

  /// The name for messages: the folder itself, or the checkpoint that was chosen.
  std::string name() const { return folder_.string(); }

  /// Loads the tokenizer. `chat_template_file` is a file of Jinja text that replaces
  /// its chat templates. Throws a usage Error when a checkpoint was saved without a
  /// tokenizer.
  text::Tokenizer tokenizer(const std::filesystem::path& chat_template_file = {}) const;
  models::ModelConfig config() const;
  bool has_weights() const;
  /// Reads the weights into `flat`, as load_hf_weights() does.
  void read_weights(const Context& ctx, const models::ModelConfig& config,
                    const models::ParameterTable& table, std::span<float> flat) const;
  /// Returns the model with its weights, packed. `max_positions` is Transformer's.
  /// Throws an Error when the tokenizer has ids that the model lacks.
  std::unique_ptr<models::Transformer> transformer(const Context& ctx,
                                                   const text::Tokenizer& tokenizer,
                                                   DType compute_dtype,
                                                   int64_t max_positions) const;

 private:
  std::filesystem::path folder_;
  std::optional<storage::Checkpoint> checkpoint_;
};

/// The bytes of the keys and values, of type `dtype`, of one sequence of `tokens`
/// tokens. Throws a usage Error, which says to lower `options`, when this machine
/// cannot hold them.
size_t longest_sequence_bytes(const models::ModelConfig& config, DType dtype, int64_t tokens,
                              const std::string& options);

/// Throws an Error when the tokenizer has ids that the model lacks.
void check_vocabulary(const std::filesystem::path& folder, const text::Tokenizer& tokenizer,
                      const models::ModelConfig& model);

/// Says what to do with a path that should be a Hugging Face folder and is a checkpoint
/// or a run: "; it is a run's folder: ...". Empty for any other path.
std::string not_a_model_hint(const std::filesystem::path& path);

}  // namespace orrery::experiments
