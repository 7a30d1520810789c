// Small random models and batches for the learner's tests.
#pragma once

#include <vector>

#include "core/rng.h"
#include "learners/batch.h"
#include "models/transformer.h"
#include "tests/support/weights.h"

namespace orrery::testing_support {

inline models::ModelConfig tiny_config(const std::string& type) {
  models::ModelConfig config;
  config.model_type = type;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = type == "qwen3" ? 8 : 6;
  config.vocab_size = 37;
  config.max_position_embeddings = 128;
  config.rope.head_dim = config.head_dim;
  config.tie_word_embeddings = type != "llama";
  config.qkv_bias = type == "qwen2";
  config.qk_norm = type == "qwen3";
  config.initializer_range = 0.2;
  return config;
}

inline std::vector<int32_t> random_tokens(Philox& generator, int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(generator.below(static_cast<uint32_t>(vocab))));
  }
  return tokens;
}

/// Weights with noise everywhere, biases and norms included, so that no gradient is
/// trivially zero.
inline void randomize(models::Transformer& model, uint64_t seed, const Context& ctx) {
  initialize_weights(ctx, model, seed);
  Philox generator(seed, RngPurpose::kTest, 1);
  change_weights(ctx, model, [&](std::vector<float>& values) {
    for (const models::Parameter& p : model.table().parameters()) {
      if (p.shape.size() == 2) continue;
      for (float& value : model.table().values(Span<float>(values), p))
        value += 0.1f * generator.normal();
    }
  });
  model.pack(ctx);
}

/// Groups of responses that share a prompt, with everything a policy loss needs.
struct TinyBatch {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<std::vector<int32_t>>> responses;
  std::vector<std::vector<std::vector<uint8_t>>> masks;
  std::vector<std::vector<std::vector<float>>> old_logprobs, advantages;

  TinyBatch(uint64_t seed, int64_t vocab, const std::vector<int64_t>& prompt_lengths,
            int64_t samples) {
    Philox generator(seed, RngPurpose::kTest, 2);
    for (const int64_t length : prompt_lengths) {
      prompts.push_back(random_tokens(generator, length, vocab));
      responses.emplace_back();
      masks.emplace_back();
      old_logprobs.emplace_back();
      advantages.emplace_back();
      for (int64_t i = 0; i < samples; ++i) {
        const int64_t tokens = 1 + generator.below(40);
        responses.back().push_back(random_tokens(generator, tokens, vocab));
        masks.back().emplace_back(static_cast<size_t>(tokens), uint8_t{1});
        if (tokens > 4) masks.back().back()[2] = 0;  // an observation token
        old_logprobs.back().emplace_back();
        const float advantage =
            (i % 2 == 0 ? 1.0f : -0.7f) + 0.1f * static_cast<float>(prompts.size() - 1);
        advantages.back().emplace_back(static_cast<size_t>(tokens), advantage);
        for (int64_t j = 0; j < tokens; ++j)
          old_logprobs.back().back().push_back(-3.6f + 0.1f * generator.normal());
      }
    }
  }

  /// One tree a prompt, or one a response (nothing shared) with split.
  std::vector<learners::Tree> trees(bool split = false) const {
    std::vector<learners::Tree> result;
    for (size_t g = 0; g < prompts.size(); ++g) {
      for (size_t i = 0; i < responses[g].size(); ++i) {
        if (i == 0 || split) result.push_back({prompts[g], {}});
        learners::Leaf leaf;
        leaf.tokens = responses[g][i];
        leaf.loss_mask = masks[g][i];
        leaf.old_logprobs = old_logprobs[g][i];
        leaf.advantages = advantages[g][i];
        leaf.weight = 0.01f;
        leaf.prompt_index = g;
        leaf.sample_index = static_cast<uint32_t>(i);
        result.back().leaves.push_back(std::move(leaf));
      }
    }
    return result;
  }
};

inline std::vector<learners::Tree*> pointers(std::vector<learners::Tree>& trees) {
  std::vector<learners::Tree*> result;
  for (learners::Tree& tree : trees) result.push_back(&tree);
  return result;
}

}  // namespace orrery::testing_support
