// What a plan refuses, what it brings to the device and takes of an arena, and that a
// model whose weights were written runs nothing before they are packed.
#include "models/batch_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/transfer.h"
#include "models/transformer.h"
#include "tests/support/device_values.h"
#include "tests/support/weights.h"

namespace orrery::models {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using testing_support::DeviceFloats;
using testing_support::test_context;
using testing_support::test_device;

ModelConfig tiny_config() {
  ModelConfig config;
  config.model_type = "llama";
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = config.rope.head_dim = 8;
  config.vocab_size = 50;
  config.max_position_embeddings = 100;
  config.tie_word_embeddings = true;
  config.initializer_range = 0.25;
  return config;
}

/// A prompt of 40 tokens and two responses of 5 and 30.
struct Group {
  std::vector<int32_t> tokens, positions, output_rows{39, 39, 44, 74};
  std::vector<kernels::AttentionSegment> segments{{0, 40, 0, -1}, {40, 5, 40, 0}, {45, 30, 40, 0}};

  Group() {
    for (int32_t i = 0; i < 75; ++i) {
      tokens.push_back(i * 7 % 50);
      positions.push_back(i < 45 ? i : i - 5);
    }
  }
  std::vector<int64_t> run_ends{75};
  TrainBatch view() const { return {tokens, positions, segments, output_rows, run_ends}; }
};

class BatchPlanTest : public testing::Test {
 protected:
  explicit BatchPlanTest(DType dtype = DType::kF32) : model_(tiny_config(), test_device(), dtype) {
    testing_support::initialize_weights(ctx_, model_, 1);
    model_.pack(ctx_);
  }
  template <class T>
  std::vector<T> host(Vec<const T> from) const {
    return testing_support::downloaded(ctx_, from);
  }
  /// The hidden states of `rows` rows, of the model's type.
  ActMat hidden(int64_t rows) { return arena_.act_mat(model_.compute_dtype(), rows, 16); }
  /// The bits of a row of them.
  std::vector<std::byte> row(ActMat m, int64_t row) const {
    const auto bytes = static_cast<int64_t>(dtype_bytes(m.dtype)) * m.cols;
    return host<std::byte>({static_cast<const std::byte*>(m.row_range(row, row + 1).data), bytes});
  }

  Context ctx_ = test_context();
  Transformer model_;
  Arena arena_{test_device()};
};

/// What f32 and bf16 have alike.
class BatchPlanOfType : public BatchPlanTest, public testing::WithParamInterface<DType> {
 protected:
  BatchPlanOfType() : BatchPlanTest(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(Types, BatchPlanOfType, testing::ValuesIn(testing_support::test_dtypes()),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

TEST_F(BatchPlanTest, OfATrainingBatchSharesFullBlocksAndCopiesThePartlyFilledOne) {
  const Group group;
  const BatchPlan plan = plan_training(ctx_, model_, group.view(), arena_);
  EXPECT_EQ(plan.rows(), 75);
  EXPECT_EQ(host<int32_t>(plan.tokens), group.tokens);
  EXPECT_EQ(host<int32_t>(plan.positions), group.positions);
  EXPECT_EQ(host<int32_t>(plan.output_rows), group.output_rows);
  EXPECT_EQ(plan.attention.pool_blocks, 5);
  EXPECT_THAT(host<int32_t>(plan.attention.tables), ElementsAre(0, 1, 0, 2, 0, 3, 4));
  const std::vector<kernels::BlockCopy> copies = host<kernels::BlockCopy>(plan.copies.copies);
  ASSERT_EQ(copies.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(copies[i].from, 1);
    EXPECT_EQ(copies[i].to, 2 + static_cast<int32_t>(i));
    EXPECT_EQ(copies[i].count, 8);
  }
  const double pairs = 40 * 41 / 2.0 + (5 * 40 + 5 * 6 / 2.0) + (30 * 40 + 30 * 31 / 2.0);
  EXPECT_EQ(plan.attention.pairs, pairs);
  EXPECT_EQ(plan.backward.pairs, pairs);
  EXPECT_THAT(plan.run_ends, ElementsAre(75));
}

TEST_F(BatchPlanTest, BadInputIsNamed) {
  const auto with = [&](auto&& change) {
    Group group;
    change(group);
    plan_training(ctx_, model_, group.view(), arena_);
  };
  EXPECT_THAT([&] { with([](Group& g) { g.tokens[3] = 50; }); },
              ThrowsMessage<Error>(HasSubstr("token 3 has id 50, outside the vocabulary of 50")));
  EXPECT_THAT([&] { with([](Group& g) { g.tokens[0] = -1; }); },
              ThrowsMessage<Error>(HasSubstr("token 0 has id -1")));
  EXPECT_THAT(
      [&] { with([](Group& g) { g.positions[7] = 100; }); },
      ThrowsMessage<Error>(HasSubstr("token 7 is at position 100, outside the table of 100")));
  EXPECT_THAT([&] { with([](Group& g) { g.output_rows[1] = 75; }); },
              ThrowsMessage<Error>(HasSubstr("output row 75 of 75")));
  EXPECT_THAT([&] { with([](Group& g) { g.positions.pop_back(); }); },
              ThrowsMessage<Error>(HasSubstr("75 tokens, 74 positions")));
  EXPECT_THAT([&] { with([](Group& g) { g.segments[2].parent = 2; }); },
              ThrowsMessage<Error>(HasSubstr("parent 2 does not precede it")));
  EXPECT_THAT([&] { with([](Group& g) {
                      g.run_ends = {40, 30, 75};
                    }); },
              ThrowsMessage<Error>(HasSubstr("a run of rows ends at 30 after 40, of 75")));
  EXPECT_THAT([&] { with([](Group& g) {
                      g.run_ends = {40, 76};
                    }); },
              ThrowsMessage<Error>(HasSubstr("a run of rows ends at 76 after 40, of 75")));
  EXPECT_THAT([&] { with([](Group& g) {
                      g.run_ends = {40, 40};
                    }); },
              ThrowsMessage<Error>(HasSubstr("the last run of 75 rows ends at 40")));
  const KvCache cache(model_.config(), DType::kF32, test_device(), 2);
  const Group group;
  const std::vector<int32_t> table{0, 2};
  const std::vector<kernels::KvSegment> segments{{0, 40, 0, table}};
  EXPECT_THAT(
      [&] {
        plan_forward(ctx_, model_, {group.tokens, group.positions, segments, {}}, cache, arena_);
      },
      ThrowsMessage<Error>(HasSubstr("outside the pool of 2 blocks")));
}

TEST_P(BatchPlanOfType, PrefillGivesTheTrainingForwardsBits) {
  const Group group;
  const ActMat trained = hidden(4);
  const BatchPlan plan = plan_training(ctx_, model_, group.view(), arena_);
  transformer_forward_train(ctx_, model_, plan, trained, arena_);
  // The prompt and the second response as one sequence.
  std::vector<int32_t> tokens(group.tokens.begin(), group.tokens.begin() + 40), positions(70);
  tokens.insert(tokens.end(), group.tokens.begin() + 45, group.tokens.end());
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> table{2, 0, 1}, outputs{39, 69};
  const std::vector<kernels::KvSegment> segments{{0, 70, 0, table}};
  const KvCache cache(model_.config(), GetParam(), test_device(), 3);
  const ActMat prefilled = hidden(2);
  transformer_forward(
      ctx_, model_,
      plan_forward(ctx_, model_, {tokens, positions, segments, outputs}, cache, arena_), cache,
      prefilled, arena_);
  EXPECT_EQ(row(prefilled, 0), row(trained, 0));
  EXPECT_EQ(row(prefilled, 1), row(trained, 3));
}

TEST(KvCacheOfBf16, ReadsNoSlotThatItsUserDidNotWrite) {
  // A prompt of 40 tokens, whose last block is copied for a sample that goes on: what
  // memory held before it was lent is in no slot that attention multiplies, though
  // nobody zeroed the pool.
  if (!testing_support::has_bf16()) GTEST_SKIP() << "the device has no bf16";
  const Context ctx = test_context();
  Transformer model(tiny_config(), test_device(), DType::kBF16);
  testing_support::initialize_weights(ctx, model, 1);
  model.pack(ctx);
  const Group group;
  const auto floats =
      static_cast<size_t>(4 * KvCache::bytes_per_block(model.config(), DType::kBF16)) /
      sizeof(float);
  const auto run = [&](uint32_t left_behind) {
    const DeviceFloats memory(ctx, std::vector<float>(floats, std::bit_cast<float>(left_behind)));
    const KvCache cache(model.config(), DType::kBF16, test_device(), 4, memory.vec());
    EXPECT_EQ(cache.own_bytes(), 0u);
    Arena arena(test_device());
    const ActMat hidden = arena.act_mat(DType::kBF16, 2, 16);
    const auto forward = [&](int64_t first, int64_t count, std::vector<int32_t> table, ActMat out) {
      const std::vector<kernels::KvSegment> segments{{0, count, first, table}};
      const std::vector<int32_t> outputs{static_cast<int32_t>(count - 1)};
      const ForwardBatch batch{Span(group.tokens).subspan(first, count),
                               Span(group.positions).subspan(first, count), segments, outputs};
      const BatchPlan plan = plan_forward(ctx, model, batch, cache, arena);
      transformer_forward(ctx, model, plan, cache, out, arena);
    };
    forward(0, 40, {3, 1}, hidden.row_range(0, 1));
    const std::vector<kernels::BlockCopy> copies{{1, 2, 8}};
    cache.copy_blocks(ctx, copies, arena);
    forward(40, 1, {3, 2}, hidden.row_range(1, 2));
    return testing_support::downloaded(
        ctx, Vec<const uint16_t>(static_cast<const uint16_t*>(hidden.data), hidden.size()));
  };
  EXPECT_EQ(run(0xFFFFFFFFu), run(0));
}

TEST_P(BatchPlanOfType, TakesWhatWasMeasured) {
  const Group group;
  const ActMat out = hidden(4);
  Arena measuring = Arena::measuring(test_device());
  measure_forward_train(model_, group.view(), measuring);
  TransformerBackward::measure(model_, group.view(), measuring);
  Arena exact(test_device());
  exact.reserve(measuring.peak(), "training", "nothing");
  const BatchPlan plan = plan_training(ctx_, model_, group.view(), exact);
  const Activations activations = transformer_forward_train(ctx_, model_, plan, out, exact);
  const DeviceFloats flat(ctx_,
                          std::vector<float>(static_cast<size_t>(model_.table().flat_size())));
  const FlatView gradients(flat.vec());
  const DeviceFloats dhidden(ctx_, std::vector<float>(4 * 16, 0.5f));
  TransformerBackward backward(ctx_, model_, plan, activations, {dhidden.vec().data, 4, 16},
                               gradients, /*accumulate=*/false, arena_.mat<float>(75, 16), exact);
  while (backward.next()) {
  }
  EXPECT_EQ(exact.peak(), measuring.peak());

  const std::vector<int32_t> table{0, 1}, outputs{39};
  const std::vector<kernels::KvSegment> segments{{0, 40, 0, table}};
  const KvCache cache(model_.config(), GetParam(), test_device(), 2);
  const auto first = [](const std::vector<int32_t>& all) { return Span(all).first(40); };
  const ForwardBatch batch{first(group.tokens), first(group.positions), segments, outputs};
  measuring = Arena::measuring(test_device());
  measure_forward(model_, batch, measuring);
  exact = Arena(test_device());
  exact.reserve(measuring.peak(), "prefill", "nothing");
  const BatchPlan prefill = plan_forward(ctx_, model_, batch, cache, exact);
  transformer_forward(ctx_, model_, prefill, cache, out.row_range(0, 1), exact);
  EXPECT_EQ(exact.peak(), measuring.peak());
}

TEST_F(BatchPlanTest, WeightsThatWereWrittenRunOnlyWhenPacked) {
  const Group group;
  const ActMat out = hidden(4);
  const BatchPlan plan = plan_training(ctx_, model_, group.view(), arena_);
  const auto run = [&] { transformer_forward_train(ctx_, model_, plan, out, arena_); };
  model_.rewrite_parameters();
  run();
  model_.write_parameters();
  EXPECT_THAT(run, ThrowsMessage<Error>(HasSubstr("written and not packed")));
  EXPECT_TRUE(model_.is_stale());
  model_.pack(ctx_);
  run();
  const Transformer fresh(tiny_config(), test_device(), DType::kF32);
  EXPECT_TRUE(fresh.is_stale());
}

}  // namespace
}  // namespace orrery::models
