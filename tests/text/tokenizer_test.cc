// Expected ids and texts come from the Python package tokenizers 0.22.
#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iterator>
#include <sstream>
#include <thread>

#include "core/error.h"
#include "tests/support/assets.h"
#include "tests/text/tokenizer_fixtures.h"

namespace orrery::text {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using namespace testing_support;  // NOLINT(google-build-using-namespace)

using Ids = std::vector<int32_t>;

Tokenizer make(const json& tokenizer, const json& config = nullptr,
               const json& generation = nullptr) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer.dump());
  if (!config.is_null()) folder.write("tokenizer_config.json", config.dump());
  if (!generation.is_null()) folder.write("generation_config.json", generation.dump());
  return Tokenizer::load(folder.path());
}

std::string error_of(std::string_view tokenizer_json, std::string_view config = "{}") {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer_json);
  folder.write("tokenizer_config.json", config);
  try {
    Tokenizer::load(folder.path());
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens) {
  IncrementalDecoder decoder(tokenizer, skip_special_tokens);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

TEST(Tokenizer, ByteLevelHonoursAddedTokenFlags) {
  const Tokenizer t = make(byte_level_tokenizer());
  EXPECT_EQ(t.encode("Hello  <l> hello<r>  x<w>a <w> <N>b<n><s>x <s>HELLO", false),
            (Ids{259, 300, 260, 301, 120, 60, 119, 62, 97, 32, 302, 32, 303, 98, 303, 305, 32, 304,
                 259}));
  EXPECT_EQ(t.encode("a<w>", false), (Ids{97, 60, 119, 62}));
  EXPECT_EQ(t.encode("<w>-<w>_", false), (Ids{302, 45, 60, 119, 62, 95}));
  EXPECT_EQ(t.encode("\u3000<l><r>\u2003<r> \n<l>", false), (Ids{300, 301, 301, 300}));
  EXPECT_EQ(t.encode("say hellooo hllo", true),
            (Ids{304, 115, 97, 121, 260, 111, 111, 32, 104, 257, 111, 301, 301}));
  EXPECT_EQ(t.decode(t.encode("Hello  <l> hello<r>  x<w>a <w> <N>b<n><s>x <s>HELLO", true), true),
            "hello<l> hello<r>x<w>a <w> <n>b<n> hello<r><r>");
  EXPECT_EQ(t.vocab_size(), 306);
  EXPECT_EQ(t.token_to_id("<n>"), 303);
  EXPECT_EQ(t.token_to_id("nothing"), std::nullopt);
  EXPECT_EQ(t.id_to_token(260), "\u0120hello");
  EXPECT_EQ(t.id_to_token(299), "");  // a hole
  EXPECT_EQ(t.id_to_token(-1), "");
  EXPECT_TRUE(t.is_special(305));
  EXPECT_FALSE(t.is_special(303));
  EXPECT_EQ(t.bos_id(), std::nullopt);
  EXPECT_TRUE(t.eos_ids().empty());
}

TEST(Tokenizer, IgnoreMergesTakesWholePieces) {
  json file = byte_level_tokenizer();
  file["model"]["ignore_merges"] = true;
  file["model"]["merges"] = json::array({json::array({"l", "l"})});
  EXPECT_EQ(make(file).encode("lo hello hell", false), (Ids{261, 260, 32, 104, 101, 257}));
}

TEST(Tokenizer, OldFilesWithoutModelTypeOrPostProcessor) {
  json file = sentencepiece_tokenizer();
  file["model"].erase("type");
  file.erase("post_processor");
  const json config = {{"bos_token", {{"content", "<s>"}, {"lstrip", false}}},
                       {"eos_token", "</s>"},
                       {"pad_token", "<unk>"},
                       {"add_bos_token", true},
                       {"add_eos_token", true},
                       {"chat_template", "raw text"}};
  const Tokenizer t = make(file, config, {{"eos_token_id", {2, 0}}});
  EXPECT_EQ(t.encode("ab", true), (Ids{266}));  // the flags change nothing beside a tokenizer.json
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_EQ(t.pad_id(), 0);
  EXPECT_EQ(t.eos_ids(), (Ids{2, 0}));
  EXPECT_TRUE(t.is_eos(0));
  EXPECT_FALSE(t.is_eos(1));
  EXPECT_EQ(t.template_tokens().at("bos_token"), "<s>");
  EXPECT_EQ(t.template_tokens().at("eos_token"), "</s>");
  EXPECT_EQ(t.chat_template(), "raw text");
}

TEST(Tokenizer, ConfigAddsTokensAndJinjaFileGoesFirst) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", sentencepiece_tokenizer().dump());
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"},
    {"name": "default", "template": "d"}], "added_tokens_decoder": {"300": {"content": "<|end|>", "special": true},
    "1": {"content": "<s>", "special": true}}, "eos_token": "<|end|>"})");
  const Tokenizer t = Tokenizer::load(folder.path());
  EXPECT_EQ(t.encode("a<|end|>", false), (Ids{263, 300}));
  EXPECT_EQ(t.vocab_size(), 301);
  EXPECT_EQ(t.eos_ids(), (Ids{300}));
  EXPECT_EQ(t.chat_template(), "d");
  folder.write("chat_template.jinja", "j");
  EXPECT_EQ(Tokenizer::load(folder.path()).chat_template(), "j");
}

TEST(Tokenizer, SentencePieceWithByteFallback) {
  const Tokenizer t = make(sentencepiece_tokenizer());
  EXPECT_EQ(t.encode("abc aab  bc", true), (Ids{266, 262, 263, 264, 268, 265}));
  EXPECT_EQ(t.encode("éxéü a", true), (Ids{259, 198, 172, 123, 198, 172, 198, 191, 263}));
  EXPECT_EQ(t.encode("", true), (Ids{}));
  EXPECT_EQ(t.encode("<s>ab</s> ab<s>a", true), (Ids{1, 266, 2, 259, 266, 1, 263}));
  EXPECT_EQ(t.decode(Ids{1, 266, 2, 259, 266, 1, 263}, false), "<s> ab</s>  ab<s> a");
  EXPECT_EQ(t.decode(Ids{1, 266, 2, 259, 266, 1, 263}, true), "ab  ab a");
  EXPECT_EQ(t.decode(Ids{259, 231, 192, 260}, false), "\uFFFD\uFFFDa");
  EXPECT_EQ(t.decode(Ids{198, 172, 258, 260}, false), "\uFFFD\uFFFD\uFFFDa");
  EXPECT_EQ(t.decode(Ids{259, 259, 260, 9999, -5}, false), " a");
}

TEST(Tokenizer, UnknownCharacters) {
  json file = sentencepiece_tokenizer();
  file["model"]["byte_fallback"] = false;
  const std::string text = "xx yy\n";
  EXPECT_EQ(make(file).encode(text, true), (Ids{259, 0, 259, 0}));  // fused
  file["model"]["fuse_unk"] = false;
  EXPECT_EQ(make(file).encode(text, true), (Ids{259, 0, 0, 259, 0, 0, 0}));
  file["model"]["unk_token"] = nullptr;
  EXPECT_EQ(make(file).encode(text, true), (Ids{268}));  // vanish, then the two spaces merge
  file["model"]["unk_token"] = "<none>";
  const Tokenizer t = make(file);
  EXPECT_EQ(t.encode("ab", true), (Ids{266}));
  EXPECT_THROW(t.encode("x", true), Error);
}

TEST(Tokenizer, ByteFallbackNeedsEveryByte) {
  json file = sentencepiece_tokenizer();
  file["model"]["vocab"].erase("<0xA9>");
  EXPECT_EQ(make(file).encode("éü", true), (Ids{259, 198, 191, 0}));
}

TEST(Tokenizer, MetaspaceAtTheStartOnly) {
  json file = sentencepiece_tokenizer();
  file["normalizer"] = nullptr;
  const json metaspace = {{"type", "Metaspace"},
                          {"replacement", "\u2581"},
                          {"prepend_scheme", "first"},
                          {"split", false}};
  file["pre_tokenizer"] = file["decoder"] = metaspace;
  const Tokenizer t = make(file);
  EXPECT_EQ(t.encode("abc aab  bc", true), (Ids{266, 262, 263, 264, 268, 265}));
  const Ids ids = t.encode("<s>ab</s> ab<s>a", true);
  EXPECT_EQ(ids, (Ids{1, 264, 2, 266, 1, 260}));
  EXPECT_EQ(t.decode(ids, false), "<s>ab</s> ab<s>a");
  EXPECT_EQ(t.decode(ids, true), "ab aba");
  EXPECT_EQ(stream(t, ids, true), "ab aba");
}

TEST(Tokenizer, NoDecoderJoinsWithSpaces) {
  json file = sentencepiece_tokenizer();
  file["decoder"] = nullptr;
  const Tokenizer t = make(file);
  EXPECT_EQ(t.decode(Ids{266, 262, 1}, false), "\u2581ab c <s>");
  EXPECT_EQ(stream(t, {266, 262, 1}, true), "\u2581ab c");
}

TEST(Tokenizer, IncrementalDecoderGivesWholeCharacters) {
  const Tokenizer bytes = make(byte_level_tokenizer());
  IncrementalDecoder decoder(bytes);
  EXPECT_EQ(decoder.push(259), "hello");
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.push(0x99), "");
  EXPECT_EQ(decoder.push(304), "");  // special, skipped
  EXPECT_EQ(decoder.push(0x82), "\U0001F642");
  EXPECT_EQ(decoder.push(0xC3), "");
  EXPECT_EQ(decoder.push('a'), "\uFFFDa");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(bytes.token_bytes(0xF0), "\xF0");
  EXPECT_EQ(bytes.token_bytes(12345), "");

  const Tokenizer pieces = make(sentencepiece_tokenizer());
  IncrementalDecoder sentence(pieces);
  EXPECT_EQ(sentence.push(1), "");
  EXPECT_EQ(sentence.push(259), "");  // the first space is stripped, as decode() does
  EXPECT_EQ(sentence.push(259), " ");
  EXPECT_EQ(sentence.push(13), "\n");  // a byte token that is a character is given out at once
  EXPECT_EQ(sentence.push(198), "");
  EXPECT_EQ(sentence.push(172), "é");
  EXPECT_EQ(pieces.decode(Ids{1, 259, 259, 13, 198, 172}, true), " \né");
}

TEST(Tokenizer, IsSharedBetweenThreads) {
  const Tokenizer t = make(byte_level_tokenizer());
  const Ids expected = t.encode("Hello hello's  é 123", true);
  std::vector<std::thread> threads;
  std::array<int, 4> wrong{};
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        count += t.encode("Hello hello's  é 123", true) != expected;
        count += t.decode(expected, true) != "hello hello's  é 123<r><r>";
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST(Tokenizer, LongTextWithoutPreTokenizerIsNotQuadratic) {
  const Tokenizer t = make(sentencepiece_tokenizer());
  std::string text;
  while (text.size() < 1'000'000) text += "aabcab bc aaaaaaaaaaa abcabc";
  const auto start = std::chrono::steady_clock::now();
  const Ids ids = t.encode(text, false);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_TRUE(t.decode(ids, false) == text);
  EXPECT_LT(seconds.count(), 60.0);  // about 0.1 s, in sanitizers 4 s; a quadratic loop takes hours
}

TEST(TokenizerErrors, TextThatIsNotUtf8) {
  const Tokenizer t = make(byte_level_tokenizer());
  for (const char* text :
       {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xC0\x80", "ab\xF4\x90\x80\x80"}) {
    try {
      t.encode(text, false);
      ADD_FAILURE() << "accepted malformed text";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("byte 2"));
    }
  }
}

TEST(TokenizerErrors, MissingAndMalformedFiles) {
  const TemporaryFolder folder;
  EXPECT_THROW(Tokenizer::load(folder.path()), Error);
  const std::string whole = byte_level_tokenizer().dump();
  EXPECT_EQ(error_of(whole), "no error");
  for (size_t length = 0; length + 1 < whole.size(); length += 1 + length / 7) {
    EXPECT_THAT(error_of(whole.substr(0, length)), HasSubstr("tokenizer.json: not valid JSON"));
  }
  EXPECT_THAT(error_of("[]"), HasSubstr("object"));
  EXPECT_THAT(error_of("{}"), HasSubstr("model"));
  EXPECT_THAT(error_of("{\"model\": 7}"), HasSubstr("model"));
  EXPECT_THAT(error_of(std::string(100'000, '[')), HasSubstr("object"));
  EXPECT_THAT(error_of("{\"a\": " + std::string(1'000'000, '[')), HasSubstr("deep"));
  EXPECT_THAT(error_of("{\"a\": 1, \"a\": 2}"), HasSubstr("twice"));
  EXPECT_THAT(error_of("{\"a\": \"\xFF\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(whole, "{\"bos_token\": 3}"),
              HasSubstr("tokenizer_config.json: bos_token: must be a string"));
  EXPECT_THAT(error_of(whole, "{\"bos_token\": \"<none>\"}"), HasSubstr("not in the vocabulary"));
  EXPECT_THAT(error_of(whole, "{\"added_tokens_decoder\": {\"x\": {\"content\": \"y\"}}}"),
              HasSubstr("token id"));
  EXPECT_THAT(error_of(whole, "{\"added_tokens_decoder\": {\"5\": {\"content\": \"y\"}}}"),
              HasSubstr("contradicts"));
  EXPECT_THAT(error_of(whole, "{\"chat_template\": []}"), HasSubstr("default"));
}

/// A valid file with one value replaced, and a part of the message that must result.
struct BadValue {
  const char* pointer;
  const char* value;
  const char* message;
};

class TokenizerBadValue : public testing::TestWithParam<BadValue> {};

TEST_P(TokenizerBadValue, GivesOneClearError) {
  json file = byte_level_tokenizer();
  file[json::json_pointer(GetParam().pointer)] = json::parse(GetParam().value);
  const std::string message = error_of(file.dump());
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, HasSubstr("tokenizer.json"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Values, TokenizerBadValue,
    testing::Values(
        BadValue{"/model/type", R"("Unigram")", "model type Unigram is not supported"},
        BadValue{"/model/type", "3", "must be a string"}, BadValue{"/model/vocab", "{}", "vocab"},
        BadValue{"/model/vocab", "[[\"a\", -1.5]]", "vocab"},
        BadValue{"/model/vocab/a", "-1", "\"a\""}, BadValue{"/model/vocab/a", "98", "same id"},
        BadValue{"/model/vocab/a", "4294967296", "\"a\""},
        BadValue{"/model/vocab/a", "1e30", "integer"},
        BadValue{"/model/vocab/a", "99999999999999999999", "integer"},
        BadValue{"/model/vocab/a", "\"1\"", "integer"}, BadValue{"/model/vocab/a", "{}", "integer"},
        BadValue{"/model/merges/0", "\"a zz\"", "model.merges[0]: token \"zz\""},
        BadValue{"/model/merges/0", "\"ab\"", "two tokens"},
        BadValue{"/model/merges/0", "\"a b c\"", "two tokens"},
        BadValue{"/model/merges/0", "[\"a\"]", "parts"},
        BadValue{"/model/merges/0", "[\"a\", \"b\", \"c\"]", "parts"},
        BadValue{"/model/merges/0", "[\"a\", [\"b\"]]", "merges"},
        BadValue{"/model/merges/0", "7", "merges"}, BadValue{"/model/merges/0", "{}", "merges"},
        BadValue{"/model/dropout", "0.1", "dropout"},
        BadValue{"/model/continuing_subword_prefix", "\"##\"", "affixes"},
        BadValue{"/model/byte_fallback", "1", "must be true or false"},
        BadValue{"/normalizer", R"({"type": "BertNormalizer"})",
                 "normalizer type BertNormalizer is not supported"},
        BadValue{"/normalizer", "[]", "normalizer: must be an object"},
        BadValue{"/normalizer", "{}", "normalizer.type"},
        BadValue{"/normalizer", R"({"type": "Replace", "pattern": {"String": ""}, "content": "x"})",
                 "empty"},
        BadValue{"/normalizer", R"({"type": "Replace", "pattern": {}, "content": "x"})", "pattern"},
        BadValue{"/pre_tokenizer", R"({"type": "WhitespaceSplit"})",
                 "pre-tokenizer type WhitespaceSplit"},
        BadValue{"/pre_tokenizer",
                 R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})",
                 "malformed"},
        BadValue{"/pre_tokenizer",
                 R"({"type": "Split", "pattern": {"Regex": "\\h"}, "behavior": "Isolated"})",
                 "not supported"},
        BadValue{"/pre_tokenizer",
                 R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Smart"})", "Smart"},
        BadValue{"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})",
                 "one character"},
        BadValue{"/pre_tokenizer", R"({"type": "Metaspace", "prepend_scheme": "last"})", "last"},
        BadValue{"/post_processor", R"({"type": "RobertaProcessing"})",
                 "post-processor type RobertaProcessing"},
        BadValue{"/post_processor/single", "[]", "sequence A"},
        BadValue{"/post_processor/special_tokens", "{}", "must be an object"},
        BadValue{"/post_processor/special_tokens/<s>/ids/0", "299", "no token has the id 299"},
        BadValue{"/decoder", R"({"type": "WordPiece"})", "decoder type WordPiece is not supported"},
        BadValue{"/decoder", R"({"type": "Strip", "content": "", "start": 1, "stop": 0})",
                 "one character"},
        BadValue{"/decoder", R"({"type": "Strip", "content": "x", "start": -1, "stop": 0})",
                 "count"},
        BadValue{"/added_tokens/0/id", "301", "repeats"},
        BadValue{"/added_tokens/0/id", "5", "contradicts"},
        BadValue{"/added_tokens/0/content", "\"a\"", "contradicts"},
        BadValue{"/added_tokens/0/content", "\"\"", "text"},
        BadValue{"/added_tokens/0/id", "123456789012", "not an id"},
        BadValue{"/added_tokens/0/id", "-3", "not an id"},
        BadValue{"/added_tokens/0/id", "null", "must be a token id"},
        BadValue{"/added_tokens", "{}", "an array"},
        BadValue{"/added_tokens/0/lstrip", "\"no\"", "true or false"}));

TEST(TokenizerErrors, RegularExpressionThatExplodes) {
  json file = byte_level_tokenizer();
  file["pre_tokenizer"] = json::parse(
      R"({"type": "Split", "pattern": {"Regex": "(?:a|aa)+[bc]"}, "behavior": "Isolated"})");
  const Tokenizer t = make(file);
  EXPECT_THROW(t.encode(std::string(5000, 'a'), false), Error);
}

// ---- real tokenizers

std::string text_of(const std::filesystem::path& file) { return read_file(file); }

std::vector<std::string> fixture_texts(const std::filesystem::path& file) {
  const std::string all = text_of(file), separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  size_t begin = 0;
  for (size_t at = all.find(separator); at != std::string::npos; at = all.find(separator, begin)) {
    texts.push_back(all.substr(begin, at - begin));
    begin = at + separator.size();
  }
  texts.push_back(all.substr(begin));  // the last one is empty
  return texts;
}

void check_fixture(const char* name, const char* tokenizer) {
  const std::filesystem::path folder = assets() / "fixtures/tokenizer-cases";
  const Tokenizer t = Tokenizer::load(assets() / "tokenizers" / tokenizer);
  const std::vector<std::string> texts = fixture_texts(folder / (std::string(name) + ".inp"));
  const std::string out = text_of(folder / (std::string(name) + ".out"));
  ASSERT_EQ(texts.size(), 47u);
  ASSERT_EQ(std::count(out.begin(), out.end(), '\n'), 46);
  std::istringstream lines(out);
  for (size_t i = 0; i < texts.size(); ++i) {
    std::string line;
    std::getline(lines, line);
    std::istringstream numbers(line);
    const Ids expected{std::istream_iterator<int32_t>(numbers), std::istream_iterator<int32_t>()};
    const Ids ids = t.encode(texts[i], false);
    EXPECT_EQ(ids, expected) << "case " << i << ": " << texts[i];
    EXPECT_EQ(stream(t, ids, false), t.decode(ids, false));
  }
}

TEST(TokenizerAssets, Gpt2Cases) {
  ORRERY_NEEDS_ASSET("tokenizers/gpt2");
  check_fixture("gpt-2", "gpt2");
}

TEST(TokenizerAssets, Qwen2Cases) {
  ORRERY_NEEDS_ASSET("tokenizers/qwen3");
  check_fixture("qwen2", "qwen3");
}

TEST(TokenizerAssets, Qwen3SpecialTokensAndNormalization) {
  ORRERY_NEEDS_ASSET("tokenizers/qwen3");
  const Tokenizer t = Tokenizer::load(assets() / "tokenizers/qwen3");
  EXPECT_EQ(t.vocab_size(), 151669);
  EXPECT_EQ(t.eos_ids(), (Ids{151645}));
  EXPECT_EQ(t.pad_id(), 151643);
  EXPECT_EQ(t.bos_id(), std::nullopt);
  EXPECT_EQ(t.encode("e\u0301", true), t.encode("\u00e9", false));
  // A mark newer than the Unicode tables of Hugging Face tokenizers is not reordered.
  const std::string marks = "a\u1ac8\u05aa";
  EXPECT_EQ(t.decode(t.encode(marks, false), false), marks);
  EXPECT_EQ(t.decode(t.encode("<|im_start|>a<think>b</think><|im_end|>", false), true),
            "a<think>b</think>");
}

TEST(TokenizerAssets, TinyStories) {
  ORRERY_NEEDS_ASSET("models/tinystories-656k");
  const Tokenizer t = Tokenizer::load(assets() / "models/tinystories-656k");
  EXPECT_EQ(t.encode("Once upon a time", true), (Ids{1, 80, 147, 201, 282, 57}));
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_EQ(t.eos_ids(), (Ids{2}));
  EXPECT_EQ(t.decode(Ids{1, 80, 147, 201, 282, 57, 2}, true), "Once upon a time");
}

TEST(TokenizerAssets, TinyStoriesLongText) {
  ORRERY_NEEDS_ASSET("models/tinystories-656k");
  ORRERY_NEEDS_ASSET("data/text/tinystories_10k.txt");
  const Tokenizer t = Tokenizer::load(assets() / "models/tinystories-656k");
  std::string text = text_of(assets() / "data/text/tinystories_10k.txt");
  std::erase_if(text, [](char c) {
    return static_cast<unsigned char>(c) >= 0x80;
  });  // it knows no curly quotes
  text.resize(200'000);
  const auto start = std::chrono::steady_clock::now();
  const Ids ids = t.encode(text, false);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_TRUE(t.decode(ids, false) == text);
  EXPECT_LT(seconds.count(), 20.0);  // busy machines and sanitizers included
}

TEST(TokenizerAssets, Stories260K) {
  ORRERY_NEEDS_ASSET("models/stories260K-hf");
  const Tokenizer t = Tokenizer::load(assets() / "models/stories260K-hf");
  EXPECT_EQ(t.encode("", true), (Ids{1}));
  EXPECT_EQ(t.vocab_size(), 512);
  const std::string text = "Lily's dog 🙂 said: \"Go!\"\n\nZoë  agreed.";
  EXPECT_EQ(t.decode(t.encode(text, true), true), text);
}

TEST(TokenizerAssets, Minimind) {
  ORRERY_NEEDS_ASSET("tokenizers/minimind-6400");
  const Tokenizer t = Tokenizer::load(assets() / "tokenizers/minimind-6400");
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_EQ(t.eos_ids(), (Ids{2}));
  const std::string text = "1 + 2 = 3, naïve 你好 🙂\r\n";
  EXPECT_EQ(t.decode(t.encode(text, true), true), text);
}

}  // namespace
}  // namespace orrery::text
