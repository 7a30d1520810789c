// How far the bf16 gradient is from the f32 one, beside torch's autocast on the same
// models, tokens and losses (tests/goldens/make_bf16_gradients.py).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/learners/golden_model.h"

namespace orrery::learners {
namespace {

using nlohmann::json;
using testing_support::gradient_of;
using testing_support::test_context;

/// What we may be further off than autocast: another rounding of the same numbers is
/// another draw of the same noise.
constexpr double kMargin = 1.2;
/// Of the f32 losses: the two sides compute the same function.
constexpr double kLossTolerance = 1e-5;

const json& recorded() {
  static const json goldens =
      json::parse(std::ifstream(testing_support::goldens_folder() / "bf16_gradients.json"));
  return goldens;
}

/// The random sequences, each a tree of its own; the loss is the mean over all
/// responses' tokens. Spans point into this object.
class LongBatch {
 public:
  LongBatch() : tokens_(recorded()["tokens"].get<std::vector<std::vector<int32_t>>>()) {
    const size_t prompt = recorded()["prompt_length"];
    size_t loss_tokens = 0;
    for (const auto& sequence : tokens_) loss_tokens += sequence.size() - prompt;
    mask_.assign(loss_tokens, 1);
    for (const auto& sequence : tokens_) {
      Leaf leaf;
      leaf.tokens = std::span(sequence).subspan(prompt);
      leaf.loss_mask = std::span(mask_).first(leaf.tokens.size());
      leaf.weight = 1.0f / static_cast<float>(loss_tokens);
      trees_.push_back({std::span(sequence).first(prompt), {std::move(leaf)}});
    }
  }
  LongBatch(const LongBatch&) = delete;
  LongBatch& operator=(const LongBatch&) = delete;

  std::vector<Tree>& trees() { return trees_; }

 private:
  std::vector<std::vector<int32_t>> tokens_;
  std::vector<uint8_t> mask_;
  std::vector<Tree> trees_;
};

/// Of all golden models together: the squares of our distances and of autocast's.
struct Squares {
  double ours = 0, autocast = 0;
};

/// Our distance for one model and case. `golden` is autocast's row.
double our_distance(const std::string& name, const std::string& what, const json& golden) {
  const Context ctx = test_context(2);
  const auto folder = testing_support::goldens_folder() / name;
  const bool is_long = what == "long";
  const Objective objective = is_long ? sft_objective() : testing_support::golden_objective();
  const storage::SafetensorsFile file(folder / "golden.safetensors");
  testing_support::GoldenBatch golden_batch(file);
  LongBatch long_batch;
  std::vector<Tree>& trees = is_long ? long_batch.trees() : golden_batch.trees();
  const auto gradient = [&](DType dtype) {
    return gradient_of(testing_support::golden_model(ctx, folder, dtype), objective, trees,
                       1 << 20);
  };
  const auto f32 = gradient(DType::kF32), bf16 = gradient(DType::kBF16);
  const double loss = golden["loss"];
  EXPECT_NEAR(f32.sums.loss, loss, kLossTolerance * std::abs(loss)) << name << ' ' << what;
  return testing_support::relative_error(bf16.gradient, f32.gradient);
}

class Bf16Gradient : public testing::TestWithParam<const char*> {};

/// Autocast's distance depends on which of transformers' attentions rounds where: the
/// default one (sdpa) is the yardstick, and mostly the nearer one.
TEST_P(Bf16Gradient, IsAsNearAsAutocasts) {
  const std::string what = GetParam();
  Squares squares;
  for (const std::string name : testing_support::kGoldenModels) {
    const json& golden = recorded()["models"][name][what];
    const double autocast = golden["sdpa"]["distance"];
    const double ours = our_distance(name, what, golden);
    EXPECT_GT(ours, 0) << name << ": bf16 rounds nothing";
    EXPECT_LE(ours, kMargin * autocast) << name;
    RecordProperty(name, fmt::format("ours {:.4g}, autocast {:.4g}", ours, autocast));
    squares.ours += ours * ours;
    squares.autocast += autocast * autocast;
  }
  RecordProperty("ratio", fmt::format("{:.3g}", std::sqrt(squares.ours / squares.autocast)));
}

INSTANTIATE_TEST_SUITE_P(Goldens, Bf16Gradient, testing::Values("golden", "long"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace orrery::learners
