// What the files beside tokenizer.json make of a tokenizer, folder by folder as Hugging
// Face
// transformers 5.24 has it (tests/goldens/make_tokenizer_folders.py), and where we
// differ from it on purpose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "tests/text/tokenizer_fixtures.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace orrery::text {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing_support::added_token;
using testing_support::TemporaryFolder;
using Ids = std::vector<int32_t>;

const json& goldens() {
  static const json parsed = json::parse(
      read_file(std::filesystem::path(ORRERY_SOURCE_DIR) / "tests/goldens/tokenizer_folders.json"));
  return parsed;
}

/// The 256 bytes, and the goldens' tokens from id 256 on.
json tokenizer_json(const std::string& base, const std::set<std::string>& special) {
  json layout = goldens()["bases"][base];
  int id = 256;
  for (const std::string content : goldens()["tokens"]) {
    layout["added_tokens"].push_back(
        added_token(content.c_str(), id++, {{"special", special.contains(content)}}));
  }
  return layout;
}

Tokenizer load(const json& layout, const json& files) {
  const TemporaryFolder folder;
  // Hundreds of folders: not written durably, as write() does.
  std::ofstream(folder.path() / "tokenizer.json") << layout;
  for (const auto& [name, content] : files.items()) std::ofstream(folder.path() / name) << content;
  return Tokenizer::load(folder.path());
}

Tokenizer load_bytes(const json& files, const std::set<std::string>& special = {}) {
  return load(tokenizer_json("bytes", special), files);
}

std::string folder_error(const json& files) {
  try {
    load_bytes(files);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(TokenizerFolders, AsTransformersReadsThem) {
  const std::string text = goldens()["text"];
  const Ids ids = goldens()["ids"];
  size_t with_text = 0;
  for (const json& golden : goldens()["cases"]) {
    const json& expect = golden["expect"];
    SCOPED_TRACE(golden.dump());
    json layout = tokenizer_json(golden["base"], golden["special"]);
    layout.update(golden["tokenizer"]);
    const Tokenizer t = load(layout, golden["files"]);
    EXPECT_EQ(json(t.template_tokens()), expect["names"]);
    EXPECT_EQ(json(t.eos_ids()), expect["end"]);
    if (!expect.contains("ids")) continue;
    ++with_text;
    EXPECT_EQ(json(t.encode(text, /*add_special_tokens=*/true)), expect["ids"]);
    EXPECT_EQ(t.decode(ids, /*skip_special_tokens=*/true), expect["text"]);
  }
  EXPECT_GT(with_text, 300u);
}

// transformers 5.24 forgets the flag of tokens in these lists when tokenizer.json has
// them unflagged, though its documentation promises it, and transformers 4 kept the
// promise.
TEST(TokenizerFolders, AdditionalSpecialTokensAreSpecial) {
  const json flags = added_token("</s>", 257);
  for (const json& list : {json{"</s>", "<a>"}, json{flags, "<a>"}}) {
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
      for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
        SCOPED_TRACE(std::string(file) + ": " + key + ": " + list.dump());
        const Tokenizer t = load_bytes({{file, {{key, list}}}});
        EXPECT_EQ(t.decode(Ids{104, 256, 257, 260, 261}, true), "h<s><b>");
        EXPECT_TRUE(t.template_tokens().empty());
        EXPECT_TRUE(t.eos_ids().empty());
      }
    }
  }
}

TEST(TokenizerFolders, ANamedTokenIsSpecialWhateverAddedTokensDecoderLeavesOut) {
  const json decoder = {{"256", added_token("<s>", 256)}};
  const Tokenizer t = load_bytes(
      {{"tokenizer_config.json", {{"added_tokens_decoder", decoder}, {"eos_token", "</s>"}}}});
  EXPECT_EQ(t.decode(Ids{104, 256, 257}, true), "h<s>");
  EXPECT_EQ(t.eos_ids(), (Ids{257}));
}

TEST(TokenizerFolders, NamesAsObjectsWithoutAType) {
  const Tokenizer t =
      load_bytes({{"tokenizer_config.json", {{"eos_token", {{"content", "</s>"}}}}}});
  EXPECT_EQ(t.template_tokens().at("eos_token"), "</s>");
  EXPECT_EQ(t.eos_id(), 257);
}

TEST(TokenizerFolders, TheTokenizersEosIsTheFirst) {
  const Tokenizer t = load_bytes(
      {{"tokenizer_config.json", {{"eos_token", "</s>"}}},
       {"generation_config.json", {{"eos_token_id", {260, 257, 261}}, {"pad_token_id", -1}}},
       {"config.json", {{"eos_token_id", 256}}}});
  EXPECT_EQ(t.eos_ids(), (Ids{257, 260, 261}));
  EXPECT_EQ(t.eos_id(), 257);
  EXPECT_EQ(load_bytes({{"config.json", {{"eos_token_id", {260, 261}}}}}).eos_id(), 260);
  EXPECT_EQ(load_bytes({}).eos_id(), std::nullopt);
}

TEST(TokenizerFolders, BosOfTheModelIsNoNameForTemplates) {
  for (const char* file : {"generation_config.json", "config.json"}) {
    const Tokenizer t =
        load_bytes({{file, {{"bos_token_id", 256}, {"eos_token_id", 257}, {"pad_token_id", 258}}},
                    {"tokenizer_config.json",
                     {{"bos_token", nullptr},
                      {"chat_template", "{{ bos_token }}{{ eos_token }}{{ pad_token }}."}}}});
    EXPECT_EQ(t.bos_id(), 256);
    EXPECT_EQ(t.pad_id(), std::nullopt);
    EXPECT_EQ(t.eos_ids(), (Ids{257}));
    EXPECT_TRUE(t.template_tokens().empty());
    EXPECT_EQ(ChatTemplate(t).render(std::vector<ChatMessage>{{"user", "x"}}), ".");
  }
}

TEST(TokenizerFolders, TemplatesKnowEveryNamedToken) {
  const json config = {
      {"bos_token", "<s>"},
      {"unk_token", {{"content", "<unk>"}}},
      {"image_token", "<a>"},
      {"pad_token", "[PAD]"},
      {"chat_template",
       "{{ bos_token }}{{ unk_token }}{{ image_token }}{{ pad_token }}{{ cls_token }}"}};
  const Tokenizer t = load_bytes({{"tokenizer_config.json", config}});
  EXPECT_EQ(ChatTemplate(t).render(std::vector<ChatMessage>{{"user", "x"}}), "<s><unk><a>[PAD]");
  EXPECT_EQ(t.pad_id(), std::nullopt);  // a name alone makes no id
}

TEST(TokenizerFolders, SeveralChatTemplates) {
  const json by_name = {{"tool_use", "t"}, {"default", "d"}};
  const json list = {{{"name", "default"}, {"template", "old"}},
                     {{"name", "tool_use"}, {"template", "t"}},
                     {{"name", "default"}, {"template", "d"}}};
  for (const json& chat_template : {by_name, list}) {
    EXPECT_EQ(
        load_bytes({{"tokenizer_config.json", {{"chat_template", chat_template}}}}).chat_template(),
        "d");
  }
  EXPECT_THAT(folder_error({{"tokenizer_config.json", {{"chat_template", {{"rag", "t"}}}}}}),
              HasSubstr("none of the chat templates has the name \"default\""));
}

TEST(TokenizerFolders, BadNamesAndIdsAreNamed) {
  const auto config = [](const json& content) { return json{{"tokenizer_config.json", content}}; };
  EXPECT_THAT(folder_error(config({{"eos_token", 5}})),
              HasSubstr("eos_token: must be a string, not a number"));
  EXPECT_THAT(folder_error(config({{"cls_token", json::array()}})),
              HasSubstr("cls_token: must be a string"));
  EXPECT_THAT(folder_error(config({{"eos_token", "<nope>"}})),
              HasSubstr("eos_token: \"<nope>\" is not in the vocabulary"));
  EXPECT_THAT(folder_error({{"special_tokens_map.json", {{"bos_token", "<nope>"}}}}),
              HasSubstr("special_tokens_map.json: bos_token: \"<nope>\" is not"));
  EXPECT_THAT(folder_error(config({{"additional_special_tokens", "</s>"}})),
              HasSubstr("additional_special_tokens: must be an array"));
  EXPECT_THAT(folder_error({{"added_tokens.json", {{"<new>", "x"}}}}),
              HasSubstr("must be a token id"));
  for (const char* file : {"generation_config.json", "config.json"}) {
    for (const json& ids :
         {json(-1), json("2"), json(true), json{257, nullptr}, json(1.5), json(1LL << 40)}) {
      const std::string error = folder_error({{file, {{"eos_token_id", ids}}}});
      EXPECT_THAT(error, HasSubstr(std::string(file) + ": eos_token_id")) << ids;
    }
  }
}

}  // namespace
}  // namespace orrery::text
