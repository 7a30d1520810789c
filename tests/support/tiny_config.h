// The model whose checkpoints tests write: every kind of parameter, some thousand
// elements.
#pragma once

#include <fmt/format.h>

#include "models/config.h"
#include "storage/manifest.h"

namespace orrery::testing_support {

inline models::ModelConfig tiny_checkpoint_config(int layers = 1) {
  return models::parse_model_config(
      fmt::format(R"({{"model_type": "qwen2", "hidden_size": 12, "intermediate_size": 20,
            "num_hidden_layers": {}, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 37,
            "max_position_embeddings": 64, "eos_token_id": 2}})",
                  layers),
      "tiny");
}

/// What a run of `step` RL steps saves beside the numbers.
inline storage::CheckpointInfo checkpoint_info(int64_t step, const models::ModelConfig& config) {
  storage::CheckpointInfo info;
  info.step = step;
  info.stage = "grpo";
  info.model_config_json = models::model_config_json(config, "float32");
  info.state.emplace();
  info.state->rl_step = step;
  return info;
}

}  // namespace orrery::testing_support
