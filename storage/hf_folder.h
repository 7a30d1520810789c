// Hugging Face model folders: config.json, model.safetensors (or shards named by
// model.safetensors.index.json), tokenizer.json and its companions. config.json is
// models/config.h's, the container storage/safetensors.h's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "core/context.h"
#include "core/dtype.h"
#include "models/config.h"
#include "models/parameters.h"

namespace orrery::storage {

/// True when the folder holds model.safetensors or an index of shards. (Where it does
/// not, a caller may use random weights.)
bool has_weights(const std::filesystem::path& folder);

/// Makes the checks of load_hf_weights that the files' headers allow: every parameter
/// is there with its shape, and nothing else is.
void check_hf_weights(const std::filesystem::path& folder, const models::ModelConfig& config,
                      const models::ParameterTable& table);

/// Reads every parameter of `table` from the folder into flat (float32;
/// table.flat_size() elements; gaps become zero).
///
/// Every parameter must be there with its shape, finite, as F32, BF16 or F16. A tensor
/// that the table lacks is an Error, except for buffers that old exporters wrote and
/// nobody reads (rotary inv_freq). With tied embeddings the file may hold either name,
/// or both when they are equal.
void load_hf_weights(const Context& ctx, const std::filesystem::path& folder,
                     const models::ModelConfig& config, const models::ParameterTable& table,
                     std::span<float> flat);

/// A model.safetensors larger than this is written as shards of at most this size.
inline constexpr int64_t kMaxShardBytes = 5'000'000'000;

/// Writes a folder that transformers loads: config.json, the weights as `dtype` (kF32,
/// kBF16, kF16), and the companion files of `tokenizer_source` (empty: none). `out`
/// must be absent or empty; it appears whole, by a rename.
void save_hf_folder(const std::filesystem::path& out, const models::ModelConfig& config,
                    const models::ParameterTable& table, std::span<const float> flat, DType dtype,
                    const std::filesystem::path& tokenizer_source,
                    int64_t max_shard_bytes = kMaxShardBytes);

/// Files beside the weights that a model needs to be used: tokenizer.json,
/// tokenizer_config.json, chat_template.jinja ...
std::span<const std::string_view> companion_files();

/// Copies those that exist, durably, into an existing folder. Returns their names.
std::vector<std::string_view> copy_companion_files(const std::filesystem::path& from,
                                                   const std::filesystem::path& to);

}  // namespace orrery::storage
