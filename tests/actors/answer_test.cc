#include "actors/envs/answer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "actors/envs/expression.h"
#include "actors/envs/latex_text.h"
#include "actors/envs/plain_text.h"

namespace orrery::actors {
namespace {

std::string marked(const std::string& response) {
  const auto answer = last_marked_answer(response);
  return answer ? std::string(answer->text) : "none";
}

bool equal(const std::string& a, const std::string& b) {
  const bool forth = same(parse_expression(plain_text(a)), parse_expression(plain_text(b)));
  EXPECT_EQ(forth, same(parse_expression(plain_text(b)), parse_expression(plain_text(a))))
      << a << " " << b;
  return forth;
}

TEST(Answer, TheLastMarkedOneCounts) {
  const std::pair<const char*, const char*> cases[] = {
      {"5 and 6 #### 1,200\nmore", " 1,200"},
      {"####42", "42"},
      {"##### 42", " 42"},
      {"#### 1\n#### 2", " 2"},
      {"#### 1 \\boxed{2}", "2"},
      {"\\boxed{1} #### 2", " 2"},
      {"\\boxed{1} and \\boxed{2}", "2"},
      {"\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"},
      {"\\fbox{42} and 9", "42"},
      {"\\boxed {42}", "42"},
      {"$\\boxed 42$", "42"},
      {"\\boxed42 is it", "42"},
      {"\\\\boxed{42}", "42"},
      {"\\boxed{\\{1,2\\}}", "\\{1,2\\}"},
      {"\\boxed{\\{ 1 \\right.}", "\\{ 1 \\right."},
      {"\\boxed{a \\\\ {b} }", "a \\\\ {b} "},
      {"\\boxed{\\boxed{5}}", "5"},
      {"{ \\boxed{5}", "5"},
      {"} \\boxed{5}", "5"},
      {"\\boxed{5} \\boxed{unclosed 3", "5"},
      {"\\boxed{unclosed 3", "none"},
      {"\\boxedx{5}", "none"},
      {"#### Paris", " Paris"},
      {"#### \n", "none"},
      {"#### Step 1: add\nso \\boxed{42}", "42"},
      {"\\boxed{42}\n#### Conclusion\nAll is well.", "42"},
      {"#### 42\n#### Notes\nThat is all.", " 42"},
      {"#### Step 1\nIt is 42.", " Step 1"},
      {"#### **$\\$42$**\nbye", " **$\\$42$**"},
      {"nothing here", "none"}};
  for (const auto& [response, expected] : cases) EXPECT_EQ(marked(response), expected) << response;
  EXPECT_EQ(last_marked_answer("#### Step 1\nIt is 42.")->mark, MarkedAnswer::Mark::kHeading);
  EXPECT_FALSE(last_boxed_answer("#### 42"));
}

TEST(Answer, EqualWhenWrittenOtherwise) {
  const std::pair<const char*, const char*> cases[] = {
      {"\\dfrac{1}{2}", "\\frac{1}{2}"},
      {"\\frac12", "1/2"},
      {"0.5", "\\frac{1}{2}"},
      {"\\frac43", "\\dfrac{4}{3}"},
      {"$\\frac{3}{56}$", "3/56"},
      {"\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}2)"},
      {"\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\dfrac\\pi2)"},
      {"(1, 0.5)", "\\left(1, \\frac{1}{2}\\right)"},
      {"\\begin{pmatrix} -1/3 \\\\ 2/3 \\\\ 5/3 \\end{pmatrix}",
       "\\begin{pmatrix} -\\frac{1}{3} \\\\ \\frac{2}{3} \\\\ \\frac53 \\end{pmatrix}"},
      {"\\text{Evelyn}", "Evelyn"},
      {"\\text{no solution}", "no solution"},
      {"\\text{(C)}", "C"},
      {"\\textbf{(C)}", "(C)"},
      {"90^\\circ", "90"},
      {"90^{\\circ}", "90\u00B0"},
      {"90\\text{ degrees}", "90^\\circ"},
      {"x=5", "5"},
      {"x = 5", "x=5"},
      {"y = 2x + 3", "y=2x+3"},
      {"y = 2x + 3", "2x + 3"},
      {"x \\in [-2,7]", "[-2, 7]"},
      {"\\theta = 30^\\circ", "30"},
      {"x_1 = 4", "4"},
      {"11\\sqrt2", "11\\sqrt{2}"},
      {"70 \\sqrt{2}", "70\\sqrt{2}"},
      {"2516_8", "2516_{8}"},
      {"4210_{5}", "4210_5"},
      {"x^{2}", "x^2"},
      {"x^10", "x^{10}"},
      {"x\u00B2", "x^2"},
      {"2\u03C0", "2\\pi"},
      {"3\u221A5", "3\\sqrt{5}"},
      {"\u221A51", "\\sqrt{51}"},
      {"\\lbrace 1, 2 \\rbrace", "\\{1,2\\}"},
      {"(2,\\infty)", "(2, +\\infty)"},
      {"(2,\u221E)", "(2,\\infty)"},
      {"\\$32,\\!348", "32348"},
      {"\\$36", "36 \\text{ dollars}"},
      {"$36$", "36."},
      {"10,\\!080", "10080"},
      {"58,500", "58500"},
      {"1 234", "1234"},
      {"5.4 \\text{ cents}", "5.4"},
      {"864 \\mbox{ inches}^2", "864"},
      {"15\\mbox{ cm}^2", "15 \\text{ cm}^{2}"},
      {"\\frac{270}7\\text{ degrees}", "\\frac{270}{7}"},
      {".75 meters", "0.75"},
      {"3 cm", "3cm"},
      {"75 \\%", "75%"},
      {"75\\%", "75"},
      {"5 hours", "5 hour"},
      {".35625", "0.35625"},
      {"137 \\frac{1}{2}", "137.5"},
      {"1\\frac{4}{5}", "\\frac{9}{5}"},
      {"\\{1\\pm\\sqrt{5},-2\\}", "\\left\\{1 \\pm \\sqrt5, -2\\right\\}"},
      {"x \\le 3", "x \\leq 3"},
      {".5x", "0.5x"},
      {"{42}", "42"},
      {"**42**", "42"},
      {"\\text{42}", "42"},
      {"\\mathbf{1{,}234}", "1234"},
      {"\\(\\frac{1}{2}\\)", "\\frac{1}{2}"},
      {"12:30", "12:30."},
      {"6 - 5i", "6-5i"}};
  for (const auto& [a, b] : cases) {
    EXPECT_TRUE(equal(a, b)) << a << " " << b;
    EXPECT_TRUE(equal(a, a)) << a;
    EXPECT_TRUE(equal(b, b)) << b;
  }
}

TEST(Answer, DifferentOnesAreNot) {
  const std::pair<const char*, const char*> cases[] = {{"\\frac{1}{2}", "2"},
                                                       {"\\frac{1}{2}", "\\frac{2}{1}"},
                                                       {"\\frac{1}{23}", "\\frac{1}{2}3"},
                                                       {"x^2", "2"},
                                                       {"x^2", "x^{23}"},
                                                       {"x^{2}3", "x^{23}"},
                                                       {"(1,2)", "(2,1)"},
                                                       {"(1,2)", "1,2"},
                                                       {"(1,2)", "[1,2]"},
                                                       {"(1,2)", "12"},
                                                       {"3, 4", "34"},
                                                       {"3,4", "34"},
                                                       {"3,4", "3.4"},
                                                       {"(1,0)", "(1,000)"},
                                                       {"1 1/2", "11/2"},
                                                       {"1\\frac12", "\\frac{11}{2}"},
                                                       {"x^1 1", "x^{11}"},
                                                       {"3 cm", "3 m"},
                                                       {"3\\text{ cm}", "3\\text{ cm}^2"},
                                                       {"\\$5", "5 \\text{ euros}"},
                                                       {"\u20AC5", "\u00A35"},
                                                       {"5\\%", "5\\text{ cm}"},
                                                       {"2k", "2"},
                                                       {"2 k", "2"},
                                                       {"3ab", "3"},
                                                       {"5i", "5"},
                                                       {"12\\pi", "12"},
                                                       {"3\\sqrt{5}", "3\\sqrt{6}"},
                                                       {"\\sqrt{ab}", "\\sqrt{a}b"},
                                                       {"\\sqrt 5", "5"},
                                                       {"52_8", "52"},
                                                       {"10^{20}", "10^{2}"},
                                                       {"x = 5", "y = 5"},
                                                       {"2x = 5", "5"},
                                                       {"5 or 7", "5"},
                                                       {"3 \\text{ or } 5", "3"},
                                                       {"5 million", "5"},
                                                       {"5\\text{ million}", "5"},
                                                       {"50\\%", "\\frac{1}{2}"},
                                                       {"-5", "5"},
                                                       {"\\pm 5", "5"},
                                                       {"5!", "5"},
                                                       {"R", "r"},
                                                       {"\\text{east}", "\\text{west}"},
                                                       {"12:30", "12"},
                                                       {"2^5", "2"},
                                                       {"\\mathbb{R}", "R"},
                                                       {"", ""},
                                                       {" ", ""},
                                                       {"$$", "$$"},
                                                       {"\\text{}", "{}"}};
  for (const auto& [a, b] : cases) EXPECT_FALSE(equal(a, b)) << a << " " << b;
}

TEST(Answer, HostileTextTakesLinearTime) {
  const size_t size = 200'000;
  std::vector<std::string> texts;
  for (const std::string unit :
       {"\\boxed{", "\\boxed", "\\boxed ", "\\boxed{}", "#### ",      "####",     "#### 1",
        "#### a\n", "{",       "}",        "{}",        "\\text{",    "\\text{}", "((",
        ",",        "$",       "**",       "\\left",    "\\begin{",   "x=",       "x_{",
        "^",        "^1",      "\\{",      "\\\\",      "5\\text{a}", "1 ",       "1 cm ",
        "\\$",      ". ",      "`",        "\\in",      "a ",         "1 234 "}) {
    std::string text;
    while (text.size() < size) text += unit;
    texts.push_back(text);
  }
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& text : texts) {
    marked(text);
    const Expression expression = parse_expression(text);
    same(expression, expression);
    canonical_latex(text);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace
}  // namespace orrery::actors
