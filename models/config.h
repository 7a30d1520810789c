// What a model is: the fields of a Hugging Face config.json that Orrery understands. A
// field that would change the mathematics and is not supported is an Error naming it,
// never ignored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/rope.h"

namespace orrery::models {

/// Decoder-only transformers of the Llama family: pre-norm, RoPE, grouped queries,
/// SwiGLU.
struct ModelConfig {
  std::string model_type;  ///< "llama", "mistral", "qwen2" or "qwen3"
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  /// Longest sequence; for a model with a sliding window, at most the window (inside it
  /// the window changes nothing).
  int64_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-5f;
  kernels::RopeConfig rope;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;  ///< biases on q, k, v (Qwen2)
  bool qk_norm = false;   ///< RMSNorm on each head of q and k (Qwen3)
  double initializer_range = 0.02;
  int64_t bos_token_id = -1;  ///< -1: none
  std::vector<int64_t> eos_token_ids;

  int64_t q_size() const { return num_attention_heads * head_dim; }
  int64_t kv_size() const { return num_key_value_heads * head_dim; }
  int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
};

/// Reads and checks `folder`/config.json (Error: path, key, value, what is supported).
ModelConfig load_model_config(const std::filesystem::path& folder);

/// Parses the text of a config.json; `where` names it in errors.
ModelConfig parse_model_config(const std::string& json, const std::string& where);

/// The config.json text that Hugging Face transformers loads, `torch_dtype` included.
std::string model_config_json(const ModelConfig& config, const std::string& torch_dtype);

}  // namespace orrery::models
