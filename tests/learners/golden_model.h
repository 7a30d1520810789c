// The golden models of tests/goldens/make_goldens.py, and their batches.
#pragma once

#include <cmath>
#include <deque>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "learners/losses/ppo.h"
#include "learners/objective.h"
#include "storage/hf_folder.h"
#include "storage/safetensors.h"
#include "tests/learners/tiny_gradient.h"

namespace orrery::testing_support {

inline constexpr const char* kGoldenModels[] = {"llama",      "llama3_rope",  "linear_rope",
                                                "qwen2",      "qwen2_untied", "qwen3",
                                                "qwen3_yarn", "mistral"};

inline std::filesystem::path goldens_folder() {
  return std::filesystem::path(ORRERY_SOURCE_DIR) / "tests/goldens";
}

inline std::vector<float> read_golden(const storage::SafetensorsFile& file,
                                      const std::string& name) {
  const storage::SafetensorsTensor* tensor = file.find(name);
  if (tensor == nullptr) throw Error("no golden " + name);
  std::vector<float> values(static_cast<size_t>(tensor->size));
  file.read_f32(*tensor, 0, values);
  return values;
}

inline std::vector<int32_t> read_golden_ids(const storage::SafetensorsFile& file,
                                            const std::string& name) {
  std::vector<int32_t> ids;
  for (const float value : read_golden(file, name)) ids.push_back(static_cast<int32_t>(value));
  return ids;
}

/// |ours - golden| / |golden| in the 2-norm.
inline double relative_error(std::span<const float> ours, std::span<const float> golden) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < golden.size(); ++i) {
    difference += std::pow(double{ours[i]} - double{golden[i]}, 2);
    norm += std::pow(double{golden[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

/// The model of a folder, packed.
inline models::Transformer golden_model(const Context& ctx, const std::filesystem::path& folder,
                                        DType compute_dtype) {
  const models::ModelConfig config = models::load_model_config(folder);
  models::Transformer model(config, test_device(), compute_dtype);
  change_weights(ctx, model, [&](std::vector<float>& weights) {
    storage::load_hf_weights({}, folder, config, model.table(), weights);
  });
  model.pack(ctx);
  return model;
}

inline constexpr float kGoldenTemperature = 0.9f;

/// The loss of the goldens.
inline learners::Objective golden_objective() {
  using learners::Policy, learners::Ppo;
  return {
      .loss = learners::make_loss(Policy<Ppo>{{.clip_ratio_c = 0}, {.coefficient = 0.1f}, 0.02f}),
      .temperature = kGoldenTemperature};
}

/// The prompt and the responses of a golden file, as one tree, whose spans point into
/// this object.
class GoldenBatch {
 public:
  explicit GoldenBatch(const storage::SafetensorsFile& golden)
      : prompt_(read_golden_ids(golden, "prompt")) {
    trees_ = {{prompt_, {}}};
    for (int i = 0; golden.find("response." + std::to_string(i)) != nullptr; ++i) {
      const std::string name = std::to_string(i);
      const auto& tokens = responses_.emplace_back(read_golden_ids(golden, "response." + name));
      masks_.emplace_back(tokens.size(), uint8_t{1});
      old_logprobs_.push_back(read_golden(golden, "old_logprobs." + name));
      advantages_.emplace_back(tokens.size(), kAdvantages[i]);
      learners::Leaf leaf;
      leaf.tokens = tokens;
      leaf.loss_mask = masks_.back();
      leaf.old_logprobs = old_logprobs_.back();
      leaf.ref_logprobs = read_golden(golden, "ref_logprobs." + name);
      leaf.advantages = advantages_.back();
      trees_[0].leaves.push_back(std::move(leaf));
      tokens_ += static_cast<int64_t>(tokens.size());
    }
    for (learners::Leaf& leaf : trees_[0].leaves) leaf.weight = 1.0f / static_cast<float>(tokens_);
  }
  GoldenBatch(const GoldenBatch&) = delete;
  GoldenBatch& operator=(const GoldenBatch&) = delete;

  std::vector<learners::Tree>& trees() { return trees_; }
  const std::deque<std::vector<int32_t>>& responses() const { return responses_; }
  /// Of all responses.
  int64_t tokens() const { return tokens_; }

 private:
  static constexpr float kAdvantages[] = {1.2f, -0.8f, 0.5f, -0.9f};

  std::vector<int32_t> prompt_;
  std::deque<std::vector<int32_t>> responses_;
  std::deque<std::vector<uint8_t>> masks_;
  std::deque<std::vector<float>> old_logprobs_, advantages_;
  std::vector<learners::Tree> trees_;
  int64_t tokens_ = 0;
};

}  // namespace orrery::testing_support
