// Which number a line behind "####" says, and which lines are headings.
#include "actors/envs/answer_line.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "actors/envs/reward_rule.h"

namespace orrery::actors {
namespace {

struct AnswerPair {
  std::string response, truth;
};

Grade graded(const AnswerPair& pair,
             proto::DataSection::AnswerExtraction extraction = proto::DataSection::AUTO) {
  return Grader(proto::GSM8K, extraction, {pair.truth}).grade(pair.response);
}

TEST(AnswerLine, SaysANumber) {
  const AnswerPair pairs[] = {
      {"#### 1. Compute\n9*2 = 18\n\n#### 2. Answer\nShe makes $18.", "18"},
      {"#### Total for week 3: $18", "18"},
      {"#### Day 3: 72", "72"},
      {"#### 20 - 2 = 18", "18"},
      {"#### 9 * 2 = 18", "18"},
      {"#### 20 out of 30", "20"},
      {"#### 42 (from 50-8)", "42"},
      {"#### 5 apples and 3 pears", "5"},
      {"#### 3 cm", "3 cm"},
      {"#### 12:30", "12:30"},
      {"#### 1 1/2", "3/2"},
      {"#### 3 hours and twenty minutes", "3"},
      {"#### 1.e3", "1000"},
      {"#### x = 5", "5"},
      {"#### 9 x 2 = 18", "18"},
      {"#### $9 x $2 = $18", "18"},
      {"#### 9 \u00D7 2 = 18", "18"},
      {"#### 9 \\times 2 = 18 dollars", "18"},
      {"#### 42 = 50 - 8", "42"},
      {"#### **2.** Answer\nIt is 18.", "18"},
      {"#### **72**", "72"},
      {"#### __72__", "72"},
      {"#### $\\mathbf{72}$", "72"},
      {"#### \\textbf{72}", "72"},
      {"#### \"72\"", "72"},
      {"#### **Answer: 72**", "72"},
      {"#### Answer: 72\nI hope 7 helps", "72"},
      {"#### The answer is 72\n7 helped", "72"},
      {"#### She makes 18 dollars", "18"},
      {"#### The answer is 18 dollars.", "18"},
      {"#### Therefore, 18", "18"},
      {"#### 18.", "18"},
      {"#### 18 .", "18"},
      {"#### 72 clips", "72"},
      {"#### 72 clips\nend", "72"},
      {"#### 5 Apples\nend", "5"},
      {"#### $18 per day", "18"},
      {"#### $18/day", "18"},
      {"#### 20%", "20"},
      {"#### 1st", "1"},
      {"#### \\frac{18}{1}", "18"},
      {"#### 36/2", "18"},
      {"#### 18 / 1", "18"},
      {"#### \u2248 18", "18"},
      {"#### = 18", "18"},
      {"####: 18", "18"},
      {"#### 18 eggs * 2 = 36", "36"},
      {"#### Total = 18", "18"},
      {"#### Total cost = 9 * 2 = $18", "18"},
      {"#### 1,234", "1234"},
      {"#### -5", "-5"},
      {"#### - 5", "-5"},
      {"#### -$5", "-5"},
      {"#### $-5", "-5"},
      {"#### 3 cm long", "3 cm"},
      {"#### 3 centimeters", "3 cm"},
      {"#### (18)", "18"},
      {"#### (18 dollars)", "18"},
      {"#### 18 (eighteen)", "18"},
      {"#### 18 (9 * 2)", "18"},
      {"#### 18, since 9 * 2 is it", "18"},
      {"#### 18 = 18", "18"},
      {"#### Paris", "Paris"},
      {"#### 18 dollars - 2 dollars = 16 dollars", "16"},
      {"#### 10^2 = 100", "100"},
      {"\\boxed{18}\n\n#### 2. Verification\nIt is right.", "18"},
      {"\\boxed{72}\n#### Explanation", "72"},
      {"\\boxed{72}\n#### Step 2", "72"},
      {"#### 72\n#### Step 2", "72"},
      {"It is 18.\n#### Step 2", "18"},
      {"#### Step 1: Add\n5 + 4 = 9\n#### Step 2: Say\nThe answer is 9", "9"},
      {"so \\boxed{5}\n#### ---", "5"},
      {"#### B", "B"},
      {"#### Final Answer\n\n$\\boxed{18}$", "18"},
      {"### 1. Add\n#### Answer\n**18**", "18"},
      {"#### Final Answer: \\boxed{18}", "18"},
      {"#### **Final Answer:** $18$", "18"},
      {"#### The answer is: **18** eggs", "18"},
      {"#### Therefore, she makes **$18** every day at the market.\n", "18"},
      {"#### Total: 5 + 4 = 9", "9"},
      {"#### 3 dozen eggs", "3"},
      {"####18", "18"},
      {"#### $18\n\n#### 1. Check\n5", "18"},
      {"#### -5 degrees", "-5"},
      {"#### 0", "0"},
      {"#### 18\u00A0dollars", "18"},
      {"#### 18\u20AC", "18"},
      {"#### \u20AC18", "18"},
      {"#### \u00A518", "18"},
      {"#### 10 am", "10"},
      {"#### 2/3 of them", "2/3"},
      {"#### 18 dollars/day", "18"},
      {"#### 2.5 hours", "2.5"},
      {"#### 2 hours 30 minutes", "2"},
      {"#### $1,000,000.00", "1000000"},
      {"#### 1 000 000", "1000000"},
      {"#### **$18.**", "18"},
      {"#### 18 **dollars**", "18"},
      {"#### (C)", "C"},
      {"#### {5}", "5"},
      {"#### 5\\frac{1}{2}", "5.5"},
      {"#### 50%", "50"},
      {"#### about 18", "18"},
      {"#### approximately 18 dollars", "18"}};
  for (const AnswerPair& pair : pairs)
    EXPECT_TRUE(graded(pair).correct) << pair.response << " | " << pair.truth;
}

TEST(AnswerLine, ANumberThatIsPartOfSomethingElseIsNone) {
  const AnswerPair pairs[] = {{"#### 1. Compute\n9*2 = 18\n\n#### 2. Answer\nShe makes $18.", "2"},
                              {"#### Total for week 3: $18", "3"},
                              {"#### Day 3: 72", "3"},
                              {"#### (2, 4)", "2"},
                              {"#### (15, -29)", "15"},
                              {"#### (a+5)(b+2)", "5"},
                              {"#### 1.234,56", "1.234"},
                              {"#### 12h30", "12"},
                              {"#### 5~6", "5"},
                              {"#### 20 - 2 = 18", "20"},
                              {"#### 9 * 2 = 18", "9"},
                              {"#### 20 out of 30", "30"},
                              {"#### 3, 4", "34"},
                              {"#### 1 1/2", "11/2"},
                              {"#### 1.e3", "1"},
                              {"#### 3, 4", "3"},
                              {"#### 3,4", "3"},
                              {"#### 1,23", "1"},
                              {"#### 5 or 6", "5"},
                              {"#### 5 to 6", "5"},
                              {"#### 5-6", "5"},
                              {"#### 5 - 6", "5"},
                              {"#### 5 : 3", "5"},
                              {"#### 5 6", "5"},
                              {"#### $20 - $2", "20"},
                              {"#### -(5)", "5"},
                              {"#### -(5)", "-5"},
                              {"#### (2)(3)", "2"},
                              {"#### (2)^3", "2"},
                              {"#### 5 < x", "5"},
                              {"#### x >= 5", "5"},
                              {"#### 2x = 5", "5"},
                              {"#### x = 5, y = 7", "7"},
                              {"#### x = 5 or x = 7", "7"},
                              {"#### 2x + 1 = 5", "5"},
                              {"#### x + 3 = 5", "5"},
                              {"#### Step 2", "2"},
                              {"#### Step 2: Answer", "2"},
                              {"#### 2) Answer\nIt is 18.", "2"},
                              {"#### 2: Answer\nIt is 18.", "2"},
                              {"#### 2 - Answer\nIt is 18.", "2"},
                              {"#### 2 Answer\nIt is 18.", "2"},
                              {"#### 1.2 Compute\nIt is 18.", "1.2"},
                              {"#### **2. Answer**\nIt is 18.", "2"},
                              {"#### 12 divided by 5", "12"},
                              {"#### 12 choose 2", "12"},
                              {"#### 12 point 5", "12"},
                              {"#### 3\\mathrm{i}", "3"},
                              {"#### 3\\text{i}", "3"},
                              {"#### \\left(2,4\\right)", "2"},
                              {"#### \\{2,4\\}", "2"},
                              {"#### [2, 4]", "2"},
                              {"#### 2;4", "2"},
                              {"#### 5'6\"", "5"},
                              {"#### 5k", "5"},
                              {"#### 5!", "5"},
                              {"#### 2 + 3", "2"},
                              {"#### 2 * 3", "2"},
                              {"#### 2**3", "2"},
                              {"#### 12/25/2020", "12"},
                              {"#### 3 cm", "3 m"},
                              {"#### 5 apples", "5 pears"},
                              {"#### x^2 + 5", "5"},
                              {"#### \\sqrt{16}", "16"},
                              {"#### a+5", "5"},
                              {"#### f(5)", "5"},
                              {"#### 5 <= 6", "5"},
                              {"#### 5\\pm 2", "5"},
                              {"#### 2, 4, and 6", "2"},
                              {"#### 2 and 4", "2"},
                              {"#### Answer", "5"},
                              {"#### 5%, 6%", "5"},
                              {"#### 20 \u00F7 2", "20"},
                              {"#### 5\u20266", "5"},
                              {"#### 5..6", "5"},
                              {"#### 5/x", "5"},
                              {"#### |5|", "5"},
                              {"\\boxed{18}\n\n#### 2. Verification\nIt is right.", "2"},
                              {"#### 2. Verification\nIt is right.", "2"},
                              {"so 5\n#### x", "5"},
                              {"so 5\n#### \\sqrt{16}", "5"},
                              {"#### A", "B"},
                              {"#### 5 * x = 10", "10"},
                              {"#### 5 + x", "5"},
                              {"#### 10:00", "10"},
                              {"#### 18 + $2", "18"},
                              {"#### 5 > 3", "5"},
                              {"#### 3 => 5", "3"},
                              {"#### (5, 6]", "5"},
                              {"#### 5 \\text{ or } 6", "5"},
                              {"#### 5 \\le 6", "5"},
                              {"#### between 5 and 6", "5"},
                              {"#### between 5 and 6", "6"},
                              {"#### 5.6.7", "5.6"},
                              {"#### 192.168.0.1", "192.168"},
                              {"#### 5e", "5"},
                              {"#### 5i", "5"},
                              {"#### 5\u03C0", "5"},
                              {"#### 5\u221A2", "5"},
                              {"#### 2000-01-02", "2000"},
                              {"#### 555-1234", "555"},
                              {"#### 18 \u00B1 2", "18"},
                              {"#### No, 5 is not enough", "5"}};
  for (const AnswerPair& pair : pairs)
    EXPECT_FALSE(graded(pair).correct) << pair.response << " | " << pair.truth;
}

TEST(AnswerLine, UnitsMustAgree) {
  EXPECT_FALSE(graded({"#### \u20AC5", "$5 dollars"}).correct);
  EXPECT_FALSE(graded({"#### 5 cents", "5 dollars"}).correct);
  EXPECT_TRUE(graded({"#### $5", "5 dollars"}).correct);
  EXPECT_TRUE(graded({"#### 5 dollars", "\\$5"}).correct);
}

TEST(AnswerLine, AHeadingIsNoMark) {
  for (const std::string line : {" 2. Answer", " **2. Answer**", " Step 2", " Explanation",
                                 " 2) Check", " 1.2. Check", " ---"}) {
    EXPECT_TRUE(read_answer_line(line, false).heading) << line;
    EXPECT_TRUE(read_answer_line(line, true).heading) << line;
    EXPECT_FALSE(graded({"####" + line + "\nIt is right.", "2"}).marked) << line;
  }
  EXPECT_TRUE(read_answer_line(" Day 3: 72", false).heading);
  EXPECT_EQ(read_answer_line(" Day 3: 72", true).value, "72");
  EXPECT_EQ(read_answer_line(" Answer: 72 clips", false).value, "72 clips");
  EXPECT_FALSE(read_answer_line(" (2, 4)", true).heading);
  EXPECT_EQ(read_answer_line(" (2, 4)", true).value, "");
  EXPECT_FALSE(
      graded({"#### 2. Answer\nShe makes $18.", "18"}, proto::DataSection::STRICT).correct);
  EXPECT_TRUE(graded({"#### She makes $18.", "18"}, proto::DataSection::STRICT).correct);
}

TEST(AnswerLine, HostileLinesTakeLinearTime) {
  for (const std::string unit : {"=",          "= ",
                                 "x=",         "1=",
                                 "a ",         "1 or ",
                                 "1, ",        ":",
                                 ": 1",        "*",
                                 "* ",         "\\text{",
                                 "(",          ")",
                                 "1.",         "1a",
                                 "a1",         "\\",
                                 ".",          "..",
                                 "$",          "x ",
                                 "1 x ",       "- ",
                                 "\\frac",     "\\frac{1}{2} ",
                                 "####",       "#### 1=",
                                 "#### a 1\n", "`{.}",
                                 "m/",         "1 "}) {
    std::string text;
    while (text.size() < 200'000) text += unit;
    // For each alone: one that is not linear takes minutes, while all together take 20
    // s under the sanitizers.
    const auto begin = std::chrono::steady_clock::now();
    for (const bool last : {false, true}) read_answer_line(text, last);
    graded({"####" + text, "5"});
    graded({"\\boxed{" + text + "}", "5"});
    graded({"\\boxed{" + text + "{.}}", "5"});
    graded({"\\boxed{5 " + text + "}", "5"});
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10)) << unit;
  }
}

}  // namespace
}  // namespace orrery::actors
