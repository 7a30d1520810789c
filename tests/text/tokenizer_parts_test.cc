// The parts of a tokenizer on their own. Expected pieces and texts come from the Python
// package tokenizers 0.22.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_decoder.h"
#include "text/tokenizer_normalizer.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

using nlohmann::json;
using Pieces = std::vector<std::string>;

JsonNode node_of(const json& value) { return {value, "test.json", "part"}; }

struct SplitCase {
  const char* pre_tokenizer;
  std::string text;
  Pieces pieces;
};

TEST(PreTokenizer, CutsAsHuggingFaceTokenizersDoes) {
  const std::vector<SplitCase> cases = {
      {R"({"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false})",
       "Hello world's 12345 don'T WE'LL  x\n\n  y\t\r\nz!?\n",
       {"Hello", " world", "'s", " ", "123", "45", " don", "'T", " WE", "'LL", " ", " x", "\n\n",
        " ", " y", "\t\r\n", "z", "!?\n"}},
      {R"({"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false})",
       "\u00E9t\u00E9 \u4F60\u597D\u3000\u3000x \u180E \u0085y",
       {"\u00E9t\u00E9", " \u4F60\u597D", "\u3000", "\u3000x", " \u180E", " ", "\u0085y"}},
      {R"({"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false})",
       "a\u00B2\u00BD\u2167 \U0001F642\u200D x'\u017F",
       {"a", "\u00B2\u00BD\u2167", " \U0001F642\u200D", " x", "'\u017F"}},
      {R"({"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false})",
       "Hello world's 12345 don'T WE'LL  x\n\n  y\t\r\nz!?\n",
       {"Hello", " world", "'s", " ",  "1",    "2", "3",  "4",      "5", " don", "'T",
        " WE",   "'LL",    " ",  " x", "\n\n", " ", " y", "\t\r\n", "z", "!?\n"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\d+"}, "behavior": "Removed", "invert": false})",
       "12ab345c6",
       {"ab", "c"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\d+"}, "behavior": "Removed", "invert": false})",
       "x",
       {"x"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\d+"}, "behavior": "Removed", "invert": true})",
       "12ab345c6",
       {"12", "345", "6"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithPrevious", "invert": false})",
       "-a--b-c-",
       {"-", "a-", "-", "b-", "c-"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithNext", "invert": false})",
       "-a--b-c-",
       {"-a", "-", "-b", "-c", "-"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Contiguous", "invert": false})",
       "-a--b-c-",
       {"-", "a", "--", "b", "-", "c", "-"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Isolated", "invert": false})",
       "-a--b-c-",
       {"-", "a", "-", "-", "b", "-", "c", "-"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithNext", "invert": true})",
       "-a--b-c-",
       {"-", "a-", "-", "b-", "c-"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\w+|[^\\w\\s]+"}, "behavior": "Isolated", "invert": false})",
       "na\u00EFve_x a\u0301b \u24D0\u2167 #! \u203Fx",
       {"na\u00EFve_x", " ", "a\u0301b", " ", "\u24D0\u2167", " ", "#!", " ", "\u203Fx"}},
      {R"({"type": "Split", "pattern": {"Regex": "^x|y$"}, "behavior": "Isolated", "invert": false})",
       "xyx\nxxy\nz",
       {"x", "yx\n", "x", "x", "y", "\nz"}},
      {R"({"type": "Digits", "individual_digits": true})",
       "a12 \u0663\u00B2x",
       {"a", "1", "2", " ", "\u0663", "\u00B2", "x"}},
      {R"({"type": "Digits", "individual_digits": false})",
       "a12 \u0663\u00B2x",
       {"a", "12", " ", "\u0663\u00B2", "x"}},
      {R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})",
       "It's   a \u00E9 42!\n\n x",
       {"It", "'s", "\u0120\u0120", "\u0120a", "\u0120\u00C3\u00A9", "\u012042", "!",
        "\u010A\u010A", "\u0120x"}},
      {R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false})",
       "a b",
       {"\u0120a\u0120b"}},
      {R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false})",
       " a",
       {"\u0120a"}},
      {R"({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true})",
       "Hey  you ",
       {"\u2581Hey", "\u2581", "\u2581you", "\u2581"}},
      {R"({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true})",
       " x",
       {"\u2581x"}},
      {R"({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": true})",
       "Hey  you ",
       {"Hey", "\u2581", "\u2581you", "\u2581"}},
      {R"({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": false})",
       "Hey  you",
       {"\u2581Hey\u2581\u2581you"}},
      {R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]})",
       "in 2024, x",
       {"in", "\u0120", "2", "0", "2", "4", ",", "\u0120x"}},
  };
  for (const SplitCase& c : cases) {
    const json parsed = json::parse(c.pre_tokenizer);
    EXPECT_EQ(PreTokenizer(node_of(parsed)).apply(c.text, true), c.pieces)
        << c.pre_tokenizer << " on " << c.text;
  }
}

TEST(PreTokenizer, MetaspaceFirstLooksAtThePlace) {
  const json parsed = {
      {"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "first"}, {"split", true}};
  const PreTokenizer first(node_of(parsed));
  EXPECT_EQ(first.apply("a b", true), (Pieces{"_a", "_b"}));
  EXPECT_EQ(first.apply("a b", false), (Pieces{"a", "_b"}));
  EXPECT_EQ(first.apply("", true), Pieces());
}

TEST(Normalizer, FormsOfUnicode) {
  const auto apply = [](const char* type, const char* text) {
    const json parsed = {{"type", type}};
    return Normalizer(node_of(parsed)).apply(text);
  };
  EXPECT_EQ(apply("NFC", "e\u0301"), "\u00E9");
  EXPECT_EQ(apply("NFC", "A\u030A"), "\u00C5");
  EXPECT_EQ(apply("NFC", "\u212B"), "\u00C5");
  EXPECT_EQ(apply("NFC", "\u1E9B\u0323"), "\u1E9B\u0323");
  EXPECT_EQ(apply("NFC", "\u1112\u1161\u11AB"), "\uD55C");
  EXPECT_EQ(apply("NFC", "a\u1AC8\u05AA"),
            "a\u1AC8\u05AA");  // newer than those tables: nothing moves across
  EXPECT_EQ(apply("NFC", "a\u0301\u05AA"), "\u00E1\u05AA");
  EXPECT_EQ(apply("NFKC", "\uFB01\u00C5\u32FF\u0130\u03A3"), "fi\u00C5\u32FF\u0130\u03A3");
  EXPECT_EQ(apply("NFD", "\uFB01\u00C5\u32FF\u0130\u03A3"), "\uFB01A\u030A\u32FFI\u0307\u03A3");
  EXPECT_EQ(apply("NFKD", "\uFB01\u00C5\u32FF\u0130\u03A3"), "fiA\u030A\u32FFI\u0307\u03A3");
  EXPECT_EQ(apply("Lowercase", "\uFB01\u00C5\u32FF\u0130\u03A3Z"),
            "\uFB01\u00E5\u32FFi\u0307\u03C3z");
}

TEST(Normalizer, SequenceOfPrependAndReplace) {
  const json parsed = json::parse(R"({"type": "Sequence", "normalizers": [
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    {"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]})");
  const Normalizer normalizer(node_of(parsed));
  EXPECT_EQ(normalizer.apply("a    b c"), "_a_b_c");
  EXPECT_EQ(normalizer.apply(""), "");
}

TEST(Regex, TranslatesOnigurumaAndRefusesWhatDiffers) {
  EXPECT_EQ(pcre2_syntax(R"([^\r\n\p{L}]?\s\S+\u4e00)", "t"),
            R"([^\r\n\p{L}]?\p{White_Space}\P{White_Space}+\x{4e00})");
  for (const char* pattern :
       {R"(\h)", R"(\K)",     R"(\1)",  R"(\R)", "[[:alpha:]]", "[a&&b]",  "(?<name>a)",
        "(?R)",  "(*ACCEPT)", "(?#x)",  "a{2}+", "a{,2}",       R"([\W])", R"(\xFF)",
        "\\",    R"(\p)",     R"(\pL)", "(?x)",  "[]a]",        "a)"}) {
    EXPECT_THROW(Regex(pattern, "t"), Error) << pattern;
  }
  EXPECT_THROW(Regex(std::string(100'000, 'a'), "t"), Error);
  EXPECT_THROW(Regex(std::string(10'000, '('), "t"), Error);
  EXPECT_THROW(Regex("\xFF", "t"), Error);
}

TEST(Regex, EmptyMatchesAreLeftOut) {
  std::vector<std::pair<size_t, size_t>> found;
  Regex("a*", "t").for_each_match(
      "b\u00E9aab", [&](size_t begin, size_t end) { found.emplace_back(begin, end); });
  EXPECT_THAT(found, testing::ElementsAre(std::pair<size_t, size_t>(3, 5)));
}

TEST(Utf8, ReplacesMaximalMalformedParts) {
  const auto lossy = [](std::string_view bytes) {
    std::string out;
    append_lossy_utf8(bytes, false, out);
    return out;
  };
  EXPECT_EQ(lossy("a\xF0\x9F\x99"
                  "b"),
            "a\uFFFDb");
  EXPECT_EQ(lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(lossy("\xC0\x80\xF5\xE2\x82"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  for (const uint32_t c : {0x24u, 0xA2u, 0x20ACu, 0xD7FFu, 0xE000u, 0x10348u, 0x10FFFFu}) {
    std::string text;
    append_utf8(c, text);
    EXPECT_EQ(find_invalid_utf8(text), std::string::npos);
    EXPECT_EQ(utf8_code_point(text, 0), c);
    EXPECT_EQ(utf8_length(text[0]), text.size());
  }
}

TEST(TokenDecoder, StepsInAnyOrder) {
  const auto decode = [](const char* decoder, Pieces tokens) {
    const json parsed = json::parse(decoder);
    return TokenDecoder(node_of(parsed)).decode(std::move(tokens));
  };
  EXPECT_EQ(
      decode(R"({"type": "Strip", "content": "x", "start": 1, "stop": 2})", {"xxaxxx", "x", "b"}),
      "xaxb");
  EXPECT_EQ(
      decode(R"({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "-"})", {"baab", "aa"}),
      "b-b-");
  EXPECT_EQ(decode(R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": true})",
                   {"_a_", "_b"}),
            "a b");
  EXPECT_EQ(decode(R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})",
                   {"_a_", "_b"}),
            " a  b");
  EXPECT_EQ(decode(R"({"type": "ByteFallback"})",
                   {"<0xE4>", "<0xBD>", "<0xA0>", "a", "<0xGG>", "<0xFF>"}),
            "\u4F60a<0xGG>\uFFFD");
  EXPECT_EQ(decode(R"({"type": "ByteLevel"})", {"\u0120\u00C3", "\u00A9", "<\u4F60>"}),
            " \u00E9<\u4F60>");
}

/// {"type": "Sequence", key: 40 times the step}
json forty_times(const char* key, const char* step) {
  json sequence = {{"type", "Sequence"}, {key, json::array()}};
  for (int i = 0; i < 40; ++i) sequence[key].push_back(json::parse(step));
  return sequence;
}

TEST(Growth, StepsThatEachDoubleATextAreRefused) {
  constexpr const char* kDoubling =
      R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  const Normalizer normalizer(node_of(forty_times("normalizers", kDoubling)));
  EXPECT_THROW(normalizer.apply("ba"), Error);
  EXPECT_EQ(normalizer.apply("b"), "b");
  const TokenDecoder decoder(node_of(forty_times("decoders", kDoubling)));
  EXPECT_THROW(decoder.decode({"b", "a"}), Error);
  EXPECT_THROW(decoder.token_bytes("a", false), Error);
  EXPECT_EQ(decoder.decode({"b", "c"}), "bc");
  const PreTokenizer pre_tokenizer(
      node_of(forty_times("pretokenizers", R"({"type": "ByteLevel", "use_regex": false})")));
  EXPECT_THROW(pre_tokenizer.apply("\u00E9", true), Error);
}

}  // namespace
}  // namespace orrery::text
