// What `--model` names: a Hugging Face folder, a checkpoint, or a run's folder (its
// newest good checkpoint). A checkpoint's weights come with the tokenizer's files
// beside them and the model's config of its manifest.
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
  /// Usage Error, which begins with `option`, when `path` is none of the three, or
  /// holds no good checkpoint. Says which checkpoint a run's folder means, and which
  /// ones are passed over.
  ModelSource(const std::filesystem::path& path, const std::string& option);

  /// For messages: the folder itself, or the checkpoint that was chosen.
  std::string name() const { return folder_.string(); }

  /// Error when a checkpoint was saved without a tokenizer. A file of Jinja text
  /// replaces its chat templates.
  text::Tokenizer tokenizer(const std::filesystem::path& chat_template_file = {}) const;
  models::ModelConfig config() const;
  bool has_weights() const;
  /// As load_hf_weights.
  void read_weights(const Context& ctx, const models::ModelConfig& config,
                    const models::ParameterTable& table, std::span<float> flat) const;
  /// Config and weights, packed. Error when the tokenizer has ids that the model lacks.
  /// max_positions: as Transformer's.
  std::unique_ptr<models::Transformer> transformer(const Context& ctx,
                                                   const text::Tokenizer& tokenizer,
                                                   DType compute_dtype,
                                                   int64_t max_positions) const;

 private:
  std::filesystem::path folder_;
  std::optional<storage::Checkpoint> checkpoint_;
};

/// Of the keys and values of one sequence of so many tokens. Usage Error when this
/// machine cannot hold them, which says to lower `options`.
size_t longest_sequence_bytes(const models::ModelConfig& config, int64_t tokens,
                              const std::string& options);

/// Error when the tokenizer has ids that the model lacks.
void check_vocabulary(const std::filesystem::path& folder, const text::Tokenizer& tokenizer,
                      const models::ModelConfig& model);

/// "; it is a run's folder: ...": what to do with a path that should be a Hugging Face
/// folder and is a checkpoint or a run; else empty.
std::string not_a_model_hint(const std::filesystem::path& path);

}  // namespace orrery::experiments
