// Stop strings and special tokens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/rng.h"
#include "rollout/engine.h"
#include "rollout/stop.h"
#include "tests/rollout/tiny_model.h"
#include "tests/support/scratch.h"

namespace orrery::rollout {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;

/// "a" 0, "b" 1, "<" 2, "s" 3, ">" 4, "<s>" 5 (special), "<n>" 6 (not), "<e>" 94
/// (special by its name alone).
class StopOnSpecials : public testing::Test {
 protected:
  StopOnSpecials() : tokenizer_(load()) {}

  text::Tokenizer load(int32_t s = 5, int32_t n = 6) const {
    json vocab;
    for (const char* token : {"a", "b", "<", "s", ">"}) vocab[token] = vocab.size();
    const auto added = [](const char* content, int id, bool special) {
      return json{{"id", id}, {"content", content}, {"special", special}, {"normalized", false}};
    };
    const json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    const json file = {
        {"added_tokens", {added("<s>", s, true), added("<n>", n, false), added("<e>", 94, false)}},
        {"pre_tokenizer", byte_level},
        {"decoder", byte_level},
        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
    std::filesystem::create_directories(folder_.path());
    write_file_atomic(folder_.path() / "tokenizer.json", file.dump());
    write_file_atomic(folder_.path() / "tokenizer_config.json", R"({"eos_token": "<e>"})");
    return text::Tokenizer::load(folder_.path());
  }

  bool stops(const Ids& ids, const std::vector<std::string>& strings) const {
    const StopStrings sorted = sort_stop_strings(tokenizer_, strings);
    StopMatcher matcher(tokenizer_, sorted);
    return std::ranges::any_of(ids, [&](int32_t id) { return matcher.push(id); });
  }

  testing_support::ScratchPath folder_{"orrery_stop_strings_"};
  text::Tokenizer tokenizer_;
};

TEST_F(StopOnSpecials, AreSortedByWhereTheyCanBeFound) {
  const std::vector<std::string> strings = {"<s>", "<n>", "<e>",  "a<s>", "<s><e>",
                                            "s>",  "b",   " <e>", "a<n>"};
  const StopStrings sorted = sort_stop_strings(tokenizer_, strings);
  EXPECT_THAT(sorted.ids, ElementsAre(5, 94));
  EXPECT_THAT(sorted.spelled, ElementsAre("a<s>", "<s><e>", " <e>"));
  EXPECT_EQ(sorted.strings, strings);
  EXPECT_THAT(sort_stop_strings(tokenizer_, {}).strings, IsEmpty());
}

// Every string over a few pieces against random responses: found exactly when the text
// without special tokens has it, or, if it holds a special token's text among other
// text, the text with them.
TEST_F(StopOnSpecials, AreFoundInOneTextOrTheOther) {
  const std::vector<std::string> pieces = {"a", "b", "<s>", "<n>", "s>", "<"};
  Philox random(3, RngPurpose::kTest);
  int found = 0, spelled = 0;
  for (size_t length = 2; length <= 3; ++length) {
    for (size_t code = 0; code < 216; ++code) {
      std::string stop;
      for (size_t i = 0, rest = code; i < length; ++i, rest /= 6) stop += pieces[rest % 6];
      for (int trial = 0; trial < 20; ++trial) {
        Ids ids;
        for (int i = 0; i < 12; ++i) ids.push_back(static_cast<int32_t>(random.uniform() * 7.0f));
        const bool in_text = tokenizer_.decode(ids, true).find(stop) != std::string::npos;
        const bool in_spelled = tokenizer_.mentions_special_token(stop) && stop != "<s>" &&
                                tokenizer_.decode(ids, false).find(stop) != std::string::npos;
        ASSERT_EQ(stops(ids, {stop}), in_text || in_spelled)
            << stop << " in " << tokenizer_.decode(ids, false);
        found += in_text ? 1 : 0;
        spelled += in_spelled && !in_text ? 1 : 0;
      }
    }
  }
  EXPECT_GT(found, 100);
  EXPECT_GT(spelled, 100);
}

TEST_F(StopOnSpecials, AStopIdIsKeptButIsNoText) {
  const Context ctx = testing_support::test_context();
  models::Transformer model(testing_support::tiny_config(testing_support::kArchitectures[0]),
                            ctx.device, DType::kF32);
  testing_support::randomize(ctx, model, 6);
  GenerateRequest request;
  request.prompt = {3, 14, 15};
  request.max_new_tokens = 60;
  Engine free_engine(ctx, model, nullptr, {});
  free_engine.submit(request);
  const GenerateResult free_run = free_engine.run()[0];
  EXPECT_FALSE(free_run.ends_in_stop_id);
  EXPECT_EQ(free_run.text_tokens().size(), free_run.tokens.size());
  const auto place = [&](int32_t id) {
    return std::ranges::find(free_run.tokens, id) - free_run.tokens.begin();
  };
  // Two of the tokens that it draws become "<s>" and "<n>".
  Ids drawn;
  for (const int32_t id : free_run.tokens) {
    if (id > 4 && id < 94 && std::ranges::find(drawn, id) == drawn.end()) drawn.push_back(id);
  }
  ASSERT_GT(drawn.size(), 4u);
  const int32_t s = drawn[4], n = drawn[3];
  const text::Tokenizer tokenizer = load(s, n);
  Engine engine(ctx, model, &tokenizer, {});
  const auto run = [&](Ids ids, std::vector<std::string> strings) {
    request.stop_token_ids = std::move(ids);
    request.stop_strings = std::move(strings);
    engine.submit(request);
    return engine.run()[0];
  };
  for (const auto& [ids, strings, end, is_id] :
       std::vector<std::tuple<Ids, std::vector<std::string>, int32_t, bool>>{
           {{s}, {}, s, true},
           {{}, {"<s>"}, s, true},
           {{}, {"<n>"}, n, false},
           {{n}, {"<n>"}, n, true}}) {
    const GenerateResult stopped = run(ids, strings);
    EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
    EXPECT_EQ(std::ssize(stopped.tokens), place(end) + 1);
    EXPECT_EQ(stopped.ends_in_stop_id, is_id);
    EXPECT_EQ(stopped.text_tokens().size(), stopped.tokens.size() - (is_id ? 1 : 0));
  }
  // At the length limit a stop id is still one.
  request.max_new_tokens = place(s) + 1;
  EXPECT_EQ(run({s}, {}).finish_reason, FinishReason::kStop);
}

}  // namespace
}  // namespace orrery::rollout
