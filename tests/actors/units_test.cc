// What may stand beside a number in a box, and what makes it another answer.
#include "actors/envs/units.h"

#include <gtest/gtest.h>

#include <string>

#include "actors/envs/reward_rule.h"

namespace orrery::actors {
namespace {

struct BoxPair {
  const char* box;
  const char* truth;
};

bool boxed_is(const BoxPair& pair) {
  const Grader grader(proto::MATH_BOXED, proto::DataSection::AUTO, {pair.truth});
  return grader.grade("so $\\boxed{" + std::string(pair.box) + "}$.").correct;
}

TEST(Units, WordsThatAreNoUnitMakeAnotherAnswer) {
  const BoxPair pairs[] = {{"3\\mathrm{i}", "3"},
                           {"3\\text{i}", "3"},
                           {"3", "3\\mathrm{i}"},
                           {"\\frac{3}{4}\\mathrm{i}", "\\frac34"},
                           {"2\\mathrm{e}", "2"},
                           {"4\\text{x}", "4"},
                           {"7\\mathrm{n}", "7"},
                           {"4\\mathrm{ln}", "4"},
                           {"3\\mathrm{P}", "3"},
                           {"(1.0,2.0\\mathrm{i})", "(1.0,2.0)"},
                           {"2\\text{ thirds}", "2"},
                           {"3\\text{ tenths}", "3"},
                           {"12\\text{ hundredths}", "12"},
                           {"3 quarters", "3"},
                           {"12 point five", "12"},
                           {"3\\text{ hours and twenty minutes}", "3"},
                           {"12\\text{ factorial}", "12"},
                           {"12\\text{ choose two}", "12"},
                           {"12\\text{ root three}", "12"},
                           {"12\\text{ divided by five}", "12"},
                           {"5 dozen", "5"},
                           {"5\\text{ does not work}", "5"},
                           {"12\\text{ false}", "12"},
                           {"5 xyz", "5"},
                           {"3\\,\\mathrm{i}", "3"},
                           {"3\\ \\text{i}", "3"},
                           {"3\\text{ x}", "3"},
                           {"3\\text{ e}", "3"},
                           {"3\\text{ n}", "3"},
                           {"5\\mathrm{m}", "5"},
                           {"5\\mathit{m}", "5"},
                           {"5m", "5"},
                           {"5 m", "5"},
                           {"5\\textbf{i}", "5"},
                           {"5\\operatorname{ln}", "5"},
                           {"5\\text{ squared}", "5"},
                           {"5\\text{ and a half}", "5"},
                           {"5\\text{ pairs}", "5"},
                           {"12\\text{ point}", "12"},
                           {"5\\text{ square}", "5"},
                           {"5\\text{ to the fourth}", "5"},
                           {"5\\text{ or more}", "5"},
                           {"5\\text{ less than}", "5"},
                           {"5\\text{ cm or 6 cm}", "5"},
                           {"5\\text{ K}", "5"},
                           {"5\\text{ k}", "5"},
                           {"3mi", "3"},
                           {"3in", "3"},
                           {"3min", "3"},
                           {"\\$5\\text{ cm}", "5"},
                           {"5/s", "5"},
                           {"5 s/m", "5"},
                           {"5\\text{ MW}", "5\\text{ mW}"},
                           {"5\\text{ feet }6\\text{ inches}", "5"},
                           {"5\\text{ tens}", "5"},
                           {"5\\text{ mod }7", "5"},
                           {"5 \\pmod{7}", "5"},
                           {"5\\text{ base }8", "5"},
                           {"5_{\\text{eight}}", "5"},
                           {"5^{\\text{th}}", "6"},
                           {"2\\text{ halves}", "2"},
                           {"3\\text{rd}", "3"},
                           {"\\{5\\}", "5"},
                           {"[5]", "5"},
                           {"(5)(6)", "5"},
                           {"5\\text{ per dozen}", "5"},
                           {"5\\text{ cents}", "\\$5"},
                           {"5\\text{ cm}^2", "5\\text{ cm}"},
                           {"x^{\\text{ab}}", "x^{a}b"},
                           {"5\\text{ negative}", "5"},
                           {"5,6", "56"},
                           {"2x=5", "5"},
                           {"5\\text{ dollars and 3 cents}", "5"},
                           {"5 or 6", "5"},
                           {"5\\text{ half-hours}", "5"},
                           {"5\\times", "5"},
                           {"5\\cdot\\text{cm}", "5"},
                           {"5\\text{ thousand}", "5"},
                           {"5\\text{ million dollars}", "5"},
                           {"5\\%", "0.05"},
                           {"5\\text{ or }6", "5"},
                           {"5 \\rm{cm}", "5"},
                           {"\\text{3 dozen}", "3"},
                           {"5 g", "5"},
                           {"5\\text{th}", "5"},
                           {"3\\text{ remainder }2", "3"},
                           {"3R2", "3"},
                           {"3 r 2", "3"},
                           {"3\\text{ R }2", "3"},
                           {"A)", "A"},
                           {"\\text{yes}", "Yes"},
                           {"\\{3,5\\}", "\\{5,3\\}"},
                           {"\\mathrm{2i}", "2"},
                           {"4\\,\\text{to}\\,5", "4"},
                           {"5\\text{ not}", "5"},
                           {"5\\text{ minus}", "5"},
                           {"5\\text{ no}", "5"},
                           {"5\\text{ is wrong}", "5"},
                           {"5?", "5"},
                           {"5!", "5"},
                           {"\\approx 5", "5"},
                           {"5\\ldots", "5"},
                           {">5", "5"},
                           {"-5", "5"},
                           {"|5|", "5"},
                           {"\\overline{5}", "5"},
                           {"0.\\overline{5}", "0.5"},
                           {"5^\\circ 30'", "5"},
                           {"5'", "5"}};
  for (const BoxPair& pair : pairs) EXPECT_FALSE(boxed_is(pair)) << pair.box << " | " << pair.truth;
}

TEST(Units, StandBesideTheNumber) {
  const BoxPair pairs[] = {{"5\\text{ m}", "5"},
                           {"5\\,\\mathrm{g}", "5"},
                           {"5~\\mathrm{cm}", "5"},
                           {"5 \\mathrm{~cm}", "5"},
                           {"5\\mathrm{cm}", "5"},
                           {"5 cm", "5\\text{ centimeters}"},
                           {"5\\text{ square units}", "5"},
                           {"5\\text{ sq. ft.}", "5\\text{ ft}^2"},
                           {"60\\text{ mph}", "60\\text{ miles per hour}"},
                           {"5\\,\\mathrm{m/s}", "5"},
                           {"5\\text{ m/s}^2", "5"},
                           {"5 m/s", "5"},
                           {"5 km/h", "5"},
                           {"\\$15\\text{ per hour}", "15"},
                           {"\\$5\\text{ dollars}", "5"},
                           {"5\\text{ a.m.}", "5"},
                           {"5\\text{ ways}", "5"},
                           {"12\\text{ different ways}", "12"},
                           {"12\\text{ apples}", "12"},
                           {"12 apples", "12"},
                           {"5\\text{ kilometres}", "5\\text{ km}"},
                           {"20^\\circ\\text{C}", "20"},
                           {"20^\\circ\\mathrm{C}", "20"},
                           {"(42)", "42"},
                           {"\\left(42\\right)", "42"},
                           {"=12", "12"},
                           {"12,", "12"},
                           {"12\\text{.}", "12"},
                           {"12\\text{ .}", "12"},
                           {"Answer: 42", "42"},
                           {"The answer is 42", "42"},
                           {"3\\text{ years old}", "3"},
                           {"3\\text{ students}", "3"},
                           {"\\text{(B)}", "B"},
                           {"B", "\\text{(B)}"},
                           {"(\\text{B})", "B"},
                           {"\\mathbf{(B)}", "(B)"},
                           {"\\text{Yes}", "Yes"},
                           {"\\textbf{Yes}", "\\text{Yes}"},
                           {"3\\mathrm{i}", "3i"},
                           {"5\\text{m}", "5\\text{ m}"},
                           {"864 \\text{ square inches}", "864 \\mbox{ inches}^2"},
                           {"5.4\\text{ \u00A2}", "5.4"},
                           {"$5$", "5"},
                           {"90\\text{ degrees}", "90"},
                           {"50\\text{ percent}", "50\\%"},
                           {"1.e3", "1000"},
                           {"5\\text{ cubic centimeters}", "5\\text{ cc}"},
                           {"\\frac{270}{7}^\\circ", "\\frac{270}7\\text{ degrees}"},
                           {"**42**", "42"},
                           {"5\\text{ xyz}", "5 xyz"},
                           {"5\\text{ Students}", "5"},
                           {"36\\pi\\text{ cm}", "36\\pi \\text{ cm}"},
                           {"12\\quad", "12"},
                           {"18\\text{ dollars}", "18"},
                           {"5 \\, \\text{km}", "5"},
                           {"3 \\text{ liters}", "3"},
                           {"5\\text{ A}", "5"},
                           {"5\\text{min}", "5"},
                           {"5\\text{hours}", "5"},
                           {"1\\text{ apple}", "1"},
                           {"5\\text{ times}", "5"},
                           {"5\\text{ thousand}", "5000"},
                           {"5\\text{ hundred}", "500"},
                           {"\\frac{1}{2}\\text{ mile}", "0.5"},
                           {"x=5\\text{ cm}", "5"},
                           {"\\text{5 cm}", "5"},
                           {"5 \\text{ units}^2", "5"},
                           {"5~\\text{units}", "5"},
                           {"5\\ \\text{units}", "5"},
                           {"5\\text{ units.}", "5"},
                           {"5 \\mathrm{\\ cm}", "5"},
                           {"5\\mathrm{\\,cm}", "5"},
                           {"5 \\text{ cm}^3", "5"},
                           {"5\\text{ cm$^2$}", "5"},
                           {"5 \\textrm{ cm}", "5"},
                           {"5\\text{ g/mL}", "5"},
                           {"5\\text{ mol/L}", "5"},
                           {"5\\text{ N}", "5"},
                           {"5\u00B0", "5"},
                           {"5\u00B0C", "5"},
                           {"5\\text{ miles/hour}", "5"},
                           {"5\\mathrm{\\ mi}", "5"},
                           {"05", "5"},
                           {"5^{\\text{th}}", "5^{th}"},
                           {"3;", "3"},
                           {"\\text{A}", "(A)"},
                           {"A.", "A"},
                           {"i", "\\mathrm{i}"},
                           {"2e", "2\\mathrm{e}"},
                           {"\\mathrm{2}", "2"},
                           {"5...", "5"}};
  for (const BoxPair& pair : pairs) EXPECT_TRUE(boxed_is(pair)) << pair.box << " | " << pair.truth;
}

TEST(Units, OnlyMeasuresHavePowers) {
  for (const char* box :
       {"5\\text{ square roots}", "5\\text{ apples}^2", "5\\text{ ways squared}"}) {
    EXPECT_FALSE(boxed_is({box, "5"})) << box;
  }
  for (const char* box : {"5\\text{ square units}", "5\\text{ m}^2", "5\\text{ meters squared}",
                          "5\\text{ cu. in.}"}) {
    EXPECT_TRUE(boxed_is({box, "5"})) << box;
  }
}

TEST(Units, StandBehindExpressions) {
  const std::pair<const char*, BoxPair> cases[] = {
      {"1", {"16\\pi\\text{ cm}^2", "16\\pi"}},
      {"1", {"16\\pi", "16\\pi\\text{ square feet}"}},
      {"1", {"3\\sqrt{5}\\text{ units}", "3\\sqrt5"}},
      {"1", {"5:30\\text{ p.m.}", "5:30"}},
      {"0", {"5:30\\text{ p.m.}", "5:30\\text{ a.m.}"}},
      {"0", {"16\\pi\\text{ cm}", "16\\pi\\text{ ft}"}},
      {"0", {"16\\pi\\text{ thirds}", "16\\pi"}},
      {"0", {"16\\pi\\mathrm{i}", "16\\pi"}},
      {"0", {"3x\\text{m}", "3x"}},
      {"0", {"3^\\text{in}", "3"}},
      {"0", {"16\\pi\\text{ or }5\\text{ cm}", "16\\pi"}}};
  for (const auto& [right, pair] : cases)
    EXPECT_EQ(boxed_is(pair), *right == '1') << pair.box << " | " << pair.truth;
}

TEST(Units, HaveOneName) {
  const std::pair<const char*, const char*> cases[] = {{"cm", "centimeter"},
                                                       {"centimetres", "centimeter"},
                                                       {"Centimeters", "centimeter"},
                                                       {"feet", "foot"},
                                                       {"ft", "foot"},
                                                       {"inches", "inch"},
                                                       {"pennies", "penny"},
                                                       {"dollars", "$"},
                                                       {"boxes", "box"},
                                                       {"strawberries", "strawberry"},
                                                       {"glasses", "glass"},
                                                       {"people", "people"},
                                                       {"person", "people"},
                                                       {"mW", "milliwatt"},
                                                       {"MW", "megawatt"},
                                                       {"points", "points"},
                                                       {"kilowatts", "kilowatt"},
                                                       {"cookies", "cookie"},
                                                       {"houses", "house"},
                                                       {"daisies", "daisy"}};
  for (const auto& [word, name] : cases) EXPECT_EQ(unit_name(word), name) << word;
  for (const char* word :
       {"",       "m",        "i",     "s",       "xyz",       "point", "root", "square", "dozen",
        "thirds", "quarters", "half",  "pair",    "million",   "ln",    "log",  "mod",    "or",
        "and",    "not",      "false", "squared", "factorial", "mw",    "es",   "ies"}) {
    EXPECT_EQ(unit_name(word), "") << word;
  }
}

TEST(Units, ABoxMayStandApartFromItsBraces) {
  for (const char* response : {"\\boxed\n{12}", "\\boxed \n {12}", "**Answer:** \\boxed{12}"}) {
    EXPECT_TRUE(Grader(proto::MATH_BOXED, proto::DataSection::AUTO, {"12"}).grade(response).correct)
        << response;
  }
}

}  // namespace
}  // namespace orrery::actors
