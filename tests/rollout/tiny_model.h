// Random models small enough to run hundreds of times, with sharp next-token
// distributions and odd sizes.
#pragma once

#include <string>

#include "core/rng.h"
#include "models/transformer.h"
#include "tests/support/weights.h"

namespace orrery::testing_support {

struct Architecture {
  std::string model_type;
  bool qkv_bias, qk_norm, tied;
  int64_t head_dim;
};

inline const Architecture kArchitectures[] = {{"llama", false, false, true, 12},
                                              {"qwen2", true, false, true, 16},
                                              {"qwen3", false, true, false, 24}};

inline models::ModelConfig tiny_config(const Architecture& a) {
  models::ModelConfig config;
  config.model_type = a.model_type;
  config.hidden_size = 40;
  config.intermediate_size = 72;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = a.head_dim;
  config.vocab_size = 95;
  config.max_position_embeddings = 200;
  config.rope.head_dim = a.head_dim;
  config.tie_word_embeddings = a.tied;
  config.qkv_bias = a.qkv_bias;
  config.qk_norm = a.qk_norm;
  config.initializer_range = 0.25;
  return config;
}

/// Weights from the seed, packed; biases and norms are not left at 0 and 1.
inline void randomize(const Context& ctx, models::Transformer& model, uint64_t seed) {
  initialize_weights(ctx, model, seed);
  Philox random(seed, RngPurpose::kTest);
  change_weights(ctx, model, [&](std::vector<float>& values) {
    for (const models::Parameter& p : model.table().parameters()) {
      if (p.shape.size() != 1) continue;
      for (float& value : model.table().values(Span<float>(values), p))
        value += 0.3f * random.normal();
    }
  });
  model.pack(ctx);
}

}  // namespace orrery::testing_support
