#include "rollout/stop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "rollout/engine.h"
#include "tests/rollout/tiny_model.h"
#include "tests/support/scratch.h"

namespace orrery::rollout {
namespace {

using testing_support::kArchitectures;
using testing_support::randomize;
using testing_support::tiny_config;

// Every text over two letters, cut into pieces in every way: found exactly when the
// whole text so far contains it.
TEST(FindStopString, FindsAStringHoweverItIsCut) {
  const std::vector<std::string> stops = {"aab", "bb", "abab"};
  for (uint32_t text_bits = 0; text_bits < 256; ++text_bits) {
    for (uint32_t cuts = 0; cuts < 128; ++cuts) {
      std::string whole, tail, piece;
      bool found = false;
      for (uint32_t i = 0; i < 8 && !found; ++i) {
        piece += (text_bits >> i & 1) != 0 ? 'a' : 'b';
        if (i < 7 && (cuts >> i & 1) == 0) continue;
        whole += piece;
        found = find_stop_string(tail, piece, stops);
        piece.clear();
        const bool expected = std::ranges::any_of(
            stops, [&](const auto& s) { return whole.find(s) != std::string::npos; });
        ASSERT_EQ(found, expected) << whole << " cuts " << cuts;
      }
    }
  }
}

/// A byte-level tokenizer of 95 tokens: most are one printable character, some are
/// several, two are halves of "é".
void write_tokenizer(const std::filesystem::path& folder) {
  nlohmann::json vocab;
  for (int32_t id = 0; id < 90; ++id) vocab[std::string(1, static_cast<char>('!' + id))] = id;
  vocab["\xC4\xA0"] = 90;  // a space
  vocab["ab"] = 91;
  vocab["\xC3\x83"] = 92;  // byte 0xC3
  vocab["\xC2\xA9"] = 93;  // byte 0xA9
  vocab
      ["\xC4\xA0"
       "abc"] = 94;
  const nlohmann::json file = {{"version", "1.0"},
                               {"added_tokens", nlohmann::json::array()},
                               {"normalizer", nullptr},
                               {"pre_tokenizer",
                                {{"type", "ByteLevel"},
                                 {"add_prefix_space", false},
                                 {"trim_offsets", true},
                                 {"use_regex", true}}},
                               {"post_processor", nullptr},
                               {"decoder",
                                {{"type", "ByteLevel"},
                                 {"add_prefix_space", false},
                                 {"trim_offsets", true},
                                 {"use_regex", true}}},
                               {"model",
                                {{"type", "BPE"},
                                 {"dropout", nullptr},
                                 {"unk_token", nullptr},
                                 {"continuing_subword_prefix", nullptr},
                                 {"end_of_word_suffix", nullptr},
                                 {"fuse_unk", false},
                                 {"byte_fallback", false},
                                 {"vocab", vocab},
                                 {"merges", nlohmann::json::array()}}}};
  write_file_atomic(folder / "tokenizer.json", file.dump());
}

TEST(StopStrings, EndTheSampleWhenTheTextFirstContainsOne) {
  const testing_support::ScratchFolder scratch;
  write_tokenizer(scratch.path());
  const text::Tokenizer tokenizer = text::Tokenizer::load(scratch.path());
  const Context ctx = testing_support::test_context();
  models::Transformer model(tiny_config(kArchitectures[0]), ctx.device, DType::kF32);
  randomize(ctx, model, 6);
  Engine engine(ctx, model, &tokenizer, {});
  GenerateRequest request;
  request.prompt = {3, 14, 15};
  request.max_new_tokens = 60;
  const auto run = [&](std::vector<std::string> stops) {
    request.stop_strings = std::move(stops);
    engine.submit(request);
    return engine.run()[0];
  };
  const GenerateResult free_run = run({});
  ASSERT_EQ(free_run.tokens.size(), 60u);
  const std::string text = tokenizer.decode(free_run.tokens, true);

  int spanning = 0;
  for (size_t begin = 0; begin < 50; begin += 3) {
    for (size_t length = 1; length <= 5; ++length) {
      const std::string stop = text.substr(begin, length);
      if (stop.find('\xEF') != std::string::npos)
        continue;  // a replacement character may still change
      size_t expected = 1;
      while (tokenizer.decode(std::span(free_run.tokens).first(expected), true).find(stop) ==
             std::string::npos)
        ++expected;
      const GenerateResult stopped = run({"never there", stop});
      EXPECT_EQ(stopped.tokens, std::vector<int32_t>(free_run.tokens.begin(),
                                                     free_run.tokens.begin() +
                                                         static_cast<std::ptrdiff_t>(expected)))
          << "stop string " << stop;
      EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
      EXPECT_EQ(stopped.logprobs.size(), expected);
      spanning += length > 3 ? 1 : 0;
    }
  }
  EXPECT_GT(spanning, 10);
  const GenerateResult unmatched = run({"never there"});
  EXPECT_EQ(unmatched.tokens, free_run.tokens);
  EXPECT_EQ(unmatched.finish_reason, FinishReason::kLength);
}

}  // namespace
}  // namespace orrery::rollout
