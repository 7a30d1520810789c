#include "core/json_duplicates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"

namespace orrery {
namespace {

TEST(JsonDuplicates, AreFoundAtAnyDepth) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"a": 1, "a": 2})", "a"},
      {R"({"a": 1, "b": {"x": [1, {"y": 1, "z": 2, "y": 3}]}})", "y"},
      {R"([{"a": 1}, {"b": 1, "b": 1}])", "b"},
      {R"({"a": {"k": 1}, "b": [1, 2], "a": null})", "a"},
      {R"({"ab": 1, "a\u0062": 2})", "ab"},
      {R"({"\"": 1, "\u0022": 2})", "\""},
      {R"({"": 1, "": 2})", ""},
      {R"({"a":"}","b":"{","a":"\\"})", "a"},
      {R"({"0":0,"1":0,"2":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0,"10":0,"11":0,"12":0,"13":0,"7":1})",
       "7"},
  };
  for (const auto& [text, key] : cases) EXPECT_EQ(duplicate_key(text), key) << text;
}

TEST(JsonDuplicates, EqualKeysOfDifferentObjectsAndValuesAreNone) {
  for (const char* text :
       {R"({"a": {"a": {"a": 1}}, "b": {"a": 2}})", R"([{"a": 1}, {"a": 1}])",
        R"({"a": "a", "b": "a"})", R"({"a": ["a", "b", "a"], "b": "{\"a\": 1, \"a\": 2}"})",
        R"({"a": 1, "A": 2, "a ": 3, "\\a": 4})", "{}", "[]", "3", R"("a")",
        R"({"a": "\\", "b": "\""})", R"({"é": 1, "e\u0301": 2})"}) {
    EXPECT_EQ(duplicate_key(text), std::nullopt) << text;
  }
}

TEST(JsonDuplicates, DeepAndWideTextsTakeOnePass) {
  const size_t deep = 1'000'000;
  std::string nested;
  for (size_t i = 0; i < deep; ++i) nested += "{\"a\":";
  nested += "{\"b\":1,\"b\":2}" + std::string(deep, '}');
  EXPECT_EQ(duplicate_key(nested), "b");
  std::string wide = "{";
  for (size_t i = 0; i < 300'000; ++i) wide += "\"k" + std::to_string(i) + "\":0,";
  EXPECT_EQ(duplicate_key(wide + "\"x\":0}"), std::nullopt);
  EXPECT_EQ(duplicate_key(wide + "\"k77\":0}"), "k77");
}

TEST(JsonDuplicates, TheErrorNamesPlaceAndKey) {
  try {
    refuse_duplicate_keys(R"({"answer": 1, "answer": 2})", "train.jsonl:7");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_STREQ(
        error.what(),
        "train.jsonl:7: key \"answer\" is given twice in one object; leave one of them out");
  }
  EXPECT_THROW(refuse_duplicate_keys(
                   "{\"" + std::string(500, 'x') + "\":1,\"" + std::string(500, 'x') + "\":1}", ""),
               Error);
  EXPECT_NO_THROW(refuse_duplicate_keys(R"({"a": 1})", ""));
}

}  // namespace
}  // namespace orrery
