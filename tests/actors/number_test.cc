#include "actors/envs/number.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "actors/envs/number_scanner.h"
#include "actors/envs/plain_text.h"

namespace orrery::actors {
namespace {

std::optional<Number> last(const std::string& text) { return last_number(plain_text(text)); }

/// Both read, and equal.
testing::AssertionResult equal(const std::optional<Number>& a, const std::string& b) {
  const auto expected = read_number(b);
  if (!expected) return testing::AssertionFailure() << b << " is not read";
  if (!a) return testing::AssertionFailure() << "nothing is read";
  return *a == *expected ? testing::AssertionSuccess()
                         : testing::AssertionFailure() << "is not " << b;
}

TEST(Number, WrittenInManyWays) {
  const std::pair<const char*, const char*> cases[] = {
      {".5", "0.5"},
      {"-.5", "-0.5"},
      {"+7", "7"},
      {"007", "7"},
      {"-0", "0"},
      {"0.0", "0"},
      {"2.50", "2.5"},
      {"\u22125", "-5"},  // minus sign
      {"\u20135", "-5"},  // en dash
      {"\u20145", "-5"},  // em dash
      {"\u20115", "-5"},  // no-break hyphen
      {"\uFF0D5", "-5"},  // full-width
      {"\uFE635", "-5"},  // small
      {"1,234", "1234"},
      {"1,234,567.50", "1234567.5"},
      {"1{,}234", "1234"},
      {"1{,}234{,}567", "1234567"},
      {"1\\,234", "1234"},
      {"1\\, 234\\, 567", "1234567"},
      {"1{\\,}234", "1234"},
      {"1\\;234", "1234"},
      {"1\\ 234", "1234"},
      {"10,\\!080", "10080"},
      {"11,\\! 111,\\! 111,\\! 100", "11111111100"},
      {"1'234'567", "1234567"},
      {"1\u2019234", "1234"},  // typographic apostrophe
      {"1\u00A0234", "1234"},  // no-break space
      {"1\u202F234\u202F567", "1234567"},
      {"1\u2009234", "1234"},  // thin space
      {"\uFF14\uFF12", "42"},
      {"\uFF11\uFF0C\uFF12\uFF13\uFF14\uFF0E\uFF15", "1234.5"},
      {"\u0664\u0662", "42"},          // Arabic-Indic
      {"\u096A\u0968", "42"},          // Devanagari
      {"\U0001D7D2\U0001D7D0", "42"},  // mathematical bold
      {"4\u200B2", "42"},              // with a zero-width space
      {"1e3", "1000"},
      {"1E+3", "1000"},
      {"1.5e-3", "0.0015"},
      {"1e-5", "0.00001"},
      {"1e-05", "0.00001"},
      {"1e21", "1000000000000000000000"},
      {"3 \\times 10^5", "300000"},
      {"3\\times10^{5}", "300000"},
      {"3 \u00D7 10\u2075", "300000"},
      {"3\u00B710\u207B\u00B2", "0.03"},
      {"3 \\cdot 10^{-2}", "0.03"},
      {"3 x 10^5", "300000"},
      {"3*10**5", "300000"},
      {"2.5 \\times 10^{ 3 }", "2500"},
      {"10^20", "100000000000000000000"},
      {"10^{-2}", "0.01"},
      {"-10^2", "-100"},
      {"1.5 million", "1500000"},
      {"2\\text{ thousand}", "2000"},
      {"4/2", "2"},
      {"1/2", "0.5"},
      {"-1/2", "-0.5"},
      {"3/6", "1/2"},
      {"1,000/4", "250"},
      {"1.5/3", "0.5"},
      {"3 / 4", "0.75"},
      {"3\u20444", "0.75"},  // fraction slash
      {"\\frac{1}{2}", "0.5"},
      {"\\dfrac{1}{2}", "0.5"},
      {"\\tfrac12", "0.5"},
      {"\\frac 59", "5/9"},
      {"\\frac{270}7", "270/7"},
      {"\\frac9{19}", "9/19"},
      {"-\\frac{1}{2}", "-0.5"},
      {"\\frac{-1}{2}", "-0.5"},
      {"-\\frac{-1}{ 2 }", "0.5"},
      {"\\frac{1}{-2}", "-0.5"},
      {"\\frac{1{,}000}{3}", "1000/3"},
      {"\u00BD", "0.5"},
      {"1 1/2", "3/2"},
      {"-1 1/2", "-3/2"},
      {"1\\frac{1}{2}", "3/2"},
      {"137 \\frac{1}{2}", "137.5"},
      {"1\u00BD", "1.5"},
      {"1 \u00BD", "1.5"},
      {"2\\,\\tfrac{3}{4}", "2.75"},
      {"1 and 1/2", "1.5"},
      {"1,000 1/2", "1000.5"},
      {"- 5", "-5"},
      {"-$5", "-5"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_TRUE(equal(read_number(text), expected)) << text;
  }
}

TEST(Number, DifferentOnesStayDifferent) {
  const std::pair<const char*, const char*> cases[] = {
      {"1 1/2", "11/2"},
      {"1/3", "0.333333333333333333"},
      {"1e20", "100000000000000000001"},
      {"1e-5", "1e-6"},
      {"9007199254740993", "9007199254740992"},
      {"-5", "5"},
      {"10^2", "102"},
      {"0.1", "0.10000000000000001"},
      {"1e999999999", "1e999999998"},
      {"3\\times10^5", "3105"},
      {"1\\frac12", "1/2"},
      {"1234567890123456789012345678901", "1234567890123456789012345678902"}};
  for (const auto& [a, b] : cases) {
    ASSERT_TRUE(read_number(a) && read_number(b)) << a << " " << b;
    EXPECT_FALSE(*read_number(a) == *read_number(b)) << a << " " << b;
  }
}

TEST(Number, OfAnyLength) {
  const std::string nines(5000, '9');
  EXPECT_TRUE(equal(read_number(nines + ".0"), nines));
  EXPECT_FALSE(*read_number(nines) == *read_number(nines + "9"));
  EXPECT_TRUE(
      equal(read_number("1" + std::string(40, '0') + "/" + "5" + std::string(39, '0')), "2"));
  EXPECT_TRUE(equal(read_number("0." + std::string(60, '0') + "5"), "5e-61"));
  EXPECT_TRUE(equal(read_number("1e999999999"), "10e999999998"));
  EXPECT_FALSE(read_number("1e99999999999999999999")) << "no number, and no memory spent on it";
  EXPECT_FALSE(read_number("1/" + nines));
}

TEST(Number, PartOfSomethingElseIsNone) {
  for (const char* text : {"12:30",
                           "1.2.3",
                           "1/2/2020",
                           "2^5",
                           "2^{5}",
                           "52_8",
                           "4210_{5}",
                           "3\\sqrt{2}",
                           "2\\pi",
                           "2\u03C0",
                           "5x",
                           "2x + 1",
                           "6 - 5i",
                           "6+9i",
                           "5 \\cdot x",
                           "3 \\times 4",
                           "2(x+1)",
                           "\\sqrt{5}",
                           "\\sqrt 5",
                           "\u221A5",
                           "x/2",
                           "\\pm 5",
                           "\u00B15",
                           "4/0",
                           "\\frac{1}{0}",
                           "x^2",
                           "a_1",
                           "\\frac{x}{2}",
                           "\\frac{\\sqrt{3}}{2}",
                           "\\log_2 8",
                           "3\\frac{5}{2}",
                           "10^x",
                           "5\\theta",
                           "2\\left(x\\right)",
                           "\\frac{1}{2}x",
                           "1e1.5",
                           "50-8",
                           "3+4"}) {
    const std::string plain = plain_text(text);
    NumberScanner scanner(plain, NumberStyle::kAnswer);
    const auto token = scanner.next();
    EXPECT_FALSE(token && token->number) << text;
  }
  for (const char* text : {"", "abc", "--4", ".", "1,23", "/2", "3, 4", "12 345", "1 234"}) {
    EXPECT_FALSE(read_number(text)) << text;
  }
}

TEST(Number, LastOfAText) {
  const std::pair<const char*, const char*> cases[] = {{"It is 7-15", "15"},
                                                       {"so -15", "-15"},
                                                       {"first 3, then 1,200.", "1200"},
                                                       {"3/4 of it", "3/4"},
                                                       {"costs $5.50 each", "5.5"},

                                                       {"The answer is .5", "0.5"},
                                                       {"The answer is .5.", "0.5"},
                                                       {"between 10\u201320", "20"},
                                                       {"the answer is \u22125", "-5"},
                                                       {"3, 4", "4"},
                                                       {"1,23", "23"},
                                                       {"(1,234,56)", "56"},
                                                       {"**42**", "42"},
                                                       {"$x = 42$.", "42"},
                                                       {"\\(42\\)", "42"},
                                                       {"\\[ 7 + 5 = 12 \\]", "12"},
                                                       {"48/2 = <<48/2=24>>24", "24"},
                                                       {"No.5", "5"},
                                                       {"about 5!", "5"},
                                                       {"it takes 5-10 minutes, so 7 minutes", "7"},
                                                       {"42 (from 50-8)", "8"},
                                                       {"90\u00B0", "90"},
                                                       {"the 5^{th} one", "5"},
                                                       {"it is \\textbf{42}", "42"},
                                                       {"5 - a good number", "5"}};
  for (const auto& [text, expected] : cases) EXPECT_TRUE(equal(last(text), expected)) << text;
  for (const char* text : {"no digits -.,", "the answer is x^2", "7 or 2\\pi", "6 - 5i", "at 12:30",
                           "7 and \\frac{x}{2}"}) {
    EXPECT_FALSE(last(text)) << text;
  }
}

TEST(Number, HostileTextTakesLinearTime) {
  const size_t size = 200'000;
  std::vector<std::string> texts;
  for (const std::string unit : {"1",
                                 "1,",
                                 "1,234",
                                 "1,234,",
                                 "1 ",
                                 "1/",
                                 "1/2 ",
                                 "1 1/2 ",
                                 ".",
                                 "-",
                                 "1.",
                                 "1e",
                                 "1e5",
                                 "\\frac",
                                 "\\frac{1",
                                 "\\frac{",
                                 "\\frac1",
                                 "1\\frac{1}",
                                 "1^",
                                 "1 \\times ",
                                 "1 \\times 10^",
                                 "1{,}",
                                 "1\\,",
                                 "{",
                                 "}",
                                 "\\",
                                 "$",
                                 "- ",
                                 "1    ",
                                 "(",
                                 "1'",
                                 "1 x 10",
                                 "\u00B9",
                                 "\u2009",
                                 "\u22121",
                                 "\xFF",
                                 "\\text{",
                                 "1\\text{ million"}) {
    std::string text;
    while (text.size() < size) text += unit;
    texts.push_back(text);
  }
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& text : texts) last(text);
  // Linear work takes well under a second of the 20 that a slow machine with a
  // sanitizer gets; quadratic takes hours.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(PlainText, KeepsWhatItDoesNotKnow) {
  EXPECT_EQ(plain_text("caf\u00E9 \u4E2D\u6587"), "caf\u00E9 \u4E2D\u6587");
  EXPECT_EQ(plain_text("\xFF\xE2\x88 5\xC2"), "\xFF\xE2\x88 5\xC2") << "malformed UTF-8";
  EXPECT_EQ(plain_text(std::string("a\0b", 3)), std::string("a\0b", 3));
  EXPECT_EQ(plain_text("x\u00B2\u00B3 + y\u2081"), "x^{23} + y_{1}");
  EXPECT_EQ(plain_text("10\u207B\u00B2"), "10^{-2}");
}

}  // namespace
}  // namespace orrery::actors
