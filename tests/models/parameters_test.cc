// Addresses of tensors: which values of a flat buffer are a tensor's, and what of which
// tensors is in a rank's stretches of it.
#include "models/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace orrery::models {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// Sizes of which some are no multiples of 16, so that there are gaps.
ModelConfig odd_config() {
  ModelConfig config;
  config.model_type = "qwen2";
  config.hidden_size = 6;
  config.intermediate_size = 10;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 3;
  config.num_key_value_heads = 1;
  config.head_dim = config.rope.head_dim = 2;
  config.vocab_size = 11;
  config.qkv_bias = true;
  return config;
}

class ParametersTest : public testing::Test {
 protected:
  ParametersTest() { std::iota(flat_.begin(), flat_.end(), 0.0f); }

  /// Where the tensor begins in the flat buffer, whose elements are their own indices.
  int64_t begin_of(const Parameter& parameter) const {
    return static_cast<int64_t>(table_.values(Span<const float>(flat_), parameter)[0]);
  }
  const Parameter& named(const char* name) const { return *table_.find(name); }
  int64_t index_of(const char* name) const { return &named(name) - table_.parameters().data(); }
  std::vector<HeldSlice> slices(const std::vector<Extent>& stretches) const {
    return table_.slices(stretches);
  }

  const ParameterTable table_{odd_config()};
  std::vector<float> flat_ = std::vector<float>(static_cast<size_t>(table_.flat_size()));
};

TEST_F(ParametersTest, TensorsFollowOneAnotherInOrderWithGapsBetweenGroups) {
  int64_t end = 0, sizes = 0;
  for (const Parameter& p : table_.parameters()) {
    const Span<const float> values = table_.values(Span<const float>(flat_), p);
    EXPECT_EQ(values.size(), p.size) << p.name;
    EXPECT_EQ(table_.find(p.name), &p);
    const int64_t begin = begin_of(p);
    EXPECT_GE(begin, end) << p.name;
    EXPECT_TRUE(begin == end || begin % 16 == 0) << p.name;
    end = begin + p.size;
    sizes += p.size;
  }
  EXPECT_LE(end, table_.flat_size());
  EXPECT_EQ(sizes, table_.parameter_count());
  EXPECT_LT(sizes, table_.flat_size()) << "there are gaps";
  EXPECT_EQ(table_.find("model.layers.2.mlp.down_proj.weight"), nullptr);
}

TEST_F(ParametersTest, GroupsAreTheirTensorsOneAfterTheOther) {
  const Vec<const float> flat(flat_.data(), table_.flat_size());
  const auto expect_group = [&](const ParameterGroup& group, int64_t cols,
                                const std::vector<const char*>& names) {
    const float* data = group.vec(flat).data;
    int64_t rows = 0;
    for (const char* name : names) {
      const Parameter& p = named(name);
      EXPECT_EQ(table_.values(flat, p).data, data + rows * cols) << name;
      EXPECT_EQ(p.size, p.shape[0] * cols) << name;
      rows += p.shape[0];
    }
    EXPECT_EQ(group.rows(), rows) << names.front();
    EXPECT_EQ(group.cols(), cols) << names.front();
    EXPECT_EQ(group.vec(flat).size, rows * cols) << names.front();
    EXPECT_EQ(group.mat(flat).data, data) << names.front();
  };
  const LayerGroups& layer = table_.layer(1);
  expect_group(table_.embedding(), 6, {"model.embed_tokens.weight"});
  expect_group(layer.input_norm, 1, {"model.layers.1.input_layernorm.weight"});
  expect_group(layer.qkv, 6,
               {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight",
                "model.layers.1.self_attn.v_proj.weight"});
  expect_group(layer.qkv_bias, 1,
               {"model.layers.1.self_attn.q_proj.bias", "model.layers.1.self_attn.k_proj.bias",
                "model.layers.1.self_attn.v_proj.bias"});
  expect_group(layer.o, 6, {"model.layers.1.self_attn.o_proj.weight"});
  expect_group(layer.post_norm, 1, {"model.layers.1.post_attention_layernorm.weight"});
  expect_group(layer.gate_up, 6,
               {"model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight"});
  expect_group(layer.down, 10, {"model.layers.1.mlp.down_proj.weight"});
  expect_group(table_.final_norm(), 1, {"model.norm.weight"});
  expect_group(table_.lm_head(), 6, {"lm_head.weight"});
  EXPECT_TRUE(layer.q_norm.empty());
  EXPECT_TRUE(layer.q_norm.vec(flat).empty());

  ModelConfig tied = odd_config();
  tied.tie_word_embeddings = true;
  const ParameterTable table(tied);
  EXPECT_EQ(table.lm_head().mat(flat).data, table.embedding().mat(flat).data);
  EXPECT_EQ(table.find("lm_head.weight"), nullptr);
}

TEST_F(ParametersTest, GroupsOfAWindowAreInItsRegion) {
  const std::vector<int64_t>& regions = table_.regions();
  const Vec<float> memory(flat_.data(), FlatView::window_size(regions));
  const FlatView window(memory, regions);
  // The first region is always there; behind it the others take turns, each of which
  // begins with a norm.
  EXPECT_EQ(table_.embedding().mat(window).data, memory.data);
  for (const ParameterGroup& first :
       {table_.layer(0).input_norm, table_.layer(1).input_norm, table_.final_norm()}) {
    EXPECT_EQ(first.vec(window).data, memory.data + regions[1]);
  }
  const Vec<float> whole(flat_.data(), table_.flat_size());
  const ParameterGroup& down = table_.layer(1).down;
  EXPECT_EQ(down.mat(window).data - memory.data,
            down.mat(whole).data - whole.data - regions[2] + regions[1]);
}

TEST_F(ParametersTest, RegionsAreEmbeddingLayersAndWhatFollows) {
  EXPECT_THAT(table_.regions(),
              ElementsAre(0, begin_of(named("model.layers.0.input_layernorm.weight")),
                          begin_of(named("model.layers.1.input_layernorm.weight")),
                          begin_of(named("model.norm.weight")), table_.flat_size()));
}

TEST_F(ParametersTest, GapsAreWhatNoTensorHas) {
  std::vector<int> held(flat_.size(), 0);
  int64_t gaps = 0;
  for (const Parameter& p : table_.parameters())
    for (const float index : table_.values(Span<const float>(flat_), p)) ++held[index];
  for (int64_t region = 0; region + 1 < std::ssize(table_.regions()); ++region) {
    for (const Extent& gap : table_.gaps(region)) {
      EXPECT_GE(gap.begin, table_.regions()[region]);
      EXPECT_LE(gap.end, table_.regions()[region + 1]);
      for (int64_t i = gap.begin; i < gap.end; ++i) ++held[i];
      ++gaps;
    }
  }
  EXPECT_THAT(held, testing::Each(1));
  EXPECT_GT(gaps, 10);
}

TEST_F(ParametersTest, SlicesOfEverythingAreWholeTensors) {
  const std::vector<HeldSlice> all = table_.slices();
  ASSERT_EQ(all.size(), table_.parameters().size());
  for (size_t i = 0; i < all.size(); ++i) {
    const Parameter& p = table_.parameters()[i];
    EXPECT_EQ(all[i], (HeldSlice{static_cast<int64_t>(i), {0, p.size}, begin_of(p)})) << p.name;
  }
}

TEST_F(ParametersTest, StretchesMayCutTensors) {
  const int64_t q = begin_of(named("model.layers.0.self_attn.q_proj.weight"));
  const int64_t index = index_of("model.layers.0.self_attn.q_proj.weight");
  // q [6, 6] and k [2, 6] stand together.
  EXPECT_THAT(slices({{q + 5, q + 7}}), ElementsAre(HeldSlice{index, {5, 7}, 0}));
  EXPECT_THAT(slices({{q + 30, q + 40}}),
              ElementsAre(HeldSlice{index, {30, 36}, 0}, HeldSlice{index + 1, {0, 4}, 6}));
  EXPECT_THAT(slices({{q, q + 36}}), ElementsAre(HeldSlice{index, {0, 36}, 0}));
  // Two stretches of one tensor, in the array one after the other.
  EXPECT_THAT(slices({{q + 1, q + 4}, {q + 20, q + 22}}),
              ElementsAre(HeldSlice{index, {1, 4}, 0}, HeldSlice{index, {20, 22}, 3}));
}

TEST_F(ParametersTest, GapsAreLeftOutAndCountInTheArray) {
  const Parameter& norm = named("model.layers.0.input_layernorm.weight");  // 6, then a gap of 10
  const int64_t begin = begin_of(norm), index = index_of("model.layers.0.input_layernorm.weight");
  EXPECT_THAT(slices({{begin + 4, begin + 18}}),
              ElementsAre(HeldSlice{index, {4, 6}, 0}, HeldSlice{index + 1, {0, 2}, 12}));
  EXPECT_THAT(slices({{begin + 6, begin + 16}}), IsEmpty()) << "nothing but the gap";
  EXPECT_THAT(slices({{begin + 7, begin + 9}, {begin + 5, begin + 8}}),
              ElementsAre(HeldSlice{index, {5, 6}, 2}));
}

TEST_F(ParametersTest, StretchesMayBeEmptyAndInAnyOrder) {
  const int64_t index = index_of("model.norm.weight"), begin = begin_of(named("model.norm.weight"));
  EXPECT_THAT(slices({}), IsEmpty());
  EXPECT_THAT(slices({{0, 0}, {begin + 2, begin + 2}, {table_.flat_size(), table_.flat_size()}}),
              IsEmpty());
  EXPECT_THAT(slices({{begin + 3, begin + 5}, {begin, begin}, {0, 4}}),
              ElementsAre(HeldSlice{index, {3, 5}, 0}, HeldSlice{0, {0, 4}, 2}));
}

TEST_F(ParametersTest, SlicesOfAnyCutHoldEveryElementOnce) {
  std::vector<int64_t> seen(flat_.size());
  for (const int64_t step : {1, 7, 50, 1000}) {
    std::vector<Extent> even, odd;
    for (int64_t begin = 0; begin < table_.flat_size(); begin += step) {
      (begin / step % 2 == 0 ? even : odd)
          .push_back({begin, std::min(begin + step, table_.flat_size())});
    }
    std::fill(seen.begin(), seen.end(), 0);
    for (const std::vector<Extent>& stretches : {odd, even}) {
      std::vector<int64_t> held;  // the elements of the array that has the stretches
      for (const Extent& e : stretches) {
        for (int64_t i = e.begin; i < e.end; ++i) held.push_back(i);
      }
      for (const HeldSlice& s : table_.slices(stretches)) {
        const int64_t begin = begin_of(table_.parameters()[s.tensor]);
        ASSERT_GT(s.elements.size(), 0);
        for (int64_t i = 0; i < s.elements.size(); ++i) {
          ASSERT_EQ(held[s.at + i], begin + s.elements.begin + i) << "cut at " << step;
          ++seen[begin + s.elements.begin + i];
        }
      }
    }
    EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), int64_t{0}), table_.parameter_count());
    EXPECT_THAT(seen, testing::Each(testing::Le(1)));
  }
}

TEST(Modules, SayWhetherTheirTensorsAreTrained) {
  const ParameterTable policy(odd_config()), reference(odd_config(), kReference);
  EXPECT_EQ(policy.module(), kPolicy);
  EXPECT_EQ(reference.module(), kReference);
  EXPECT_EQ(kPolicy.name, "policy");
  EXPECT_EQ(kReference.name, "reference");
  for (const Parameter& p : policy.parameters()) EXPECT_TRUE(p.trainable) << p.name;
  for (const Parameter& p : reference.parameters()) EXPECT_FALSE(p.trainable) << p.name;
  EXPECT_EQ(policy.flat_size(), reference.flat_size());
}

}  // namespace
}  // namespace orrery::models
