#include "actors/envs/reward_rule.h"

#include <algorithm>
#include <iterator>

#include "actors/envs/answer.h"
#include "actors/envs/number_scanner.h"
#include "actors/envs/plain_text.h"
#include "core/ascii.h"

namespace orrery::actors {
namespace {

/// The longest response that is also compared as a whole when it has no mark.
constexpr size_t kShortResponse = 4096;

struct SourceRule {
  std::string_view name;
  proto::RewardRule rule;
};

// Names in lower case: verl's, and those under which the same problems are published or
// passed around. verl grades "math", "math_dapo" and aime by a rule of another kind, so
// they are not here.
constexpr SourceRule kSourceRules[] = {
    {"gsm8k", proto::GSM8K},
    {"openai/gsm8k", proto::GSM8K},
    {"math500", proto::MATH_BOXED},
    {"math-500", proto::MATH_BOXED},
    {"math_500", proto::MATH_BOXED},
    {"huggingfaceh4/math-500", proto::MATH_BOXED},
    {"lighteval/math", proto::MATH_BOXED},
    {"lighteval/math-hard", proto::MATH_BOXED},
    {"digitallearninggmbh/math-lighteval", proto::MATH_BOXED},
    {"hendrycks/competition_math", proto::MATH_BOXED},
    {"hendrycks_math", proto::MATH_BOXED},
    {"hendrycks/math", proto::MATH_BOXED},
    {"competition_math", proto::MATH_BOXED},
    {"eleutherai/hendrycks_math", proto::MATH_BOXED},
};

std::optional<MarkedAnswer> find_mark(proto::RewardRule rule, std::string_view plain) {
  return rule == proto::MATH_BOXED ? last_boxed_answer(plain) : last_marked_answer(plain);
}

/// Cuts the lines behind "####", as the number of a heading is no answer.
std::string without_headings(std::string_view plain) {
  std::string rest;
  for (size_t at = 0; at < plain.size();) {
    const size_t mark = std::min(plain.find("####", at), plain.size());
    rest += plain.substr(at, mark - at);
    at = std::min(plain.find('\n', mark), plain.size());
  }
  return rest;
}

/// Whether the unit is a word. Words behind the answer's number must then name the same
/// unit; for signs such as % and $ they need not.
bool has_unit_of_words(const Quantity& quantity) {
  return !quantity.unit.empty() && is_letter(quantity.unit.front());
}

}  // namespace

std::optional<proto::RewardRule> rule_of_source(std::string_view data_source) {
  const std::string name = to_lower(data_source);
  for (const SourceRule& source : kSourceRules) {
    if (name == source.name) return source.rule;
  }
  return std::nullopt;
}

std::string known_sources() {
  std::string names;
  for (const SourceRule& source : kSourceRules) {
    names += names.empty() ? "" : ", ";
    names += source.name;
  }
  return names;
}

Grader::Grader(proto::RewardRule rule, proto::DataSection::AnswerExtraction extraction,
               const std::vector<std::string>& truths)
    : rule_(rule),
      flexible_(extraction == proto::DataSection::FLEXIBLE ||
                (extraction == proto::DataSection::AUTO && rule == proto::GSM8K)) {
  for (const std::string& truth : truths) {
    const std::string plain = plain_text(truth);
    const auto mark = find_mark(rule, plain);
    truths_.push_back(parse_expression(mark ? mark->text : plain));
  }
}

bool Grader::right(const Expression& answer) const {
  return std::any_of(truths_.begin(), truths_.end(),
                     [&](const Expression& truth) { return same(answer, truth); });
}

/// Whether the line behind "####" is right as a whole, or by the number that it says.
bool Grader::right_line(std::string_view line, std::string_view value) const {
  const Expression whole = parse_expression(line);
  if (right(whole)) return true;
  if (whole.quantity) return false;  // another number, or another unit
  NumberScanner scanner(value, NumberStyle::kAnswer);
  const auto token = scanner.next();
  if (!token || !token->number) return false;
  const LeadingUnit behind = leading_unit(value.substr(token->end));
  return std::any_of(truths_.begin(), truths_.end(), [&](const Expression& truth) {
    if (!truth.quantity || truth.quantity->number != *token->number) return false;
    return !has_unit_of_words(*truth.quantity) || !behind.words ||
           behind.unit == truth.quantity->unit;
  });
}

bool Grader::right_number(std::string_view plain) const {
  if (plain.size() <= kShortResponse && right(parse_expression(plain))) return true;
  const auto number = last_number(plain);
  return number && std::any_of(truths_.begin(), truths_.end(), [&](const Expression& truth) {
           return truth.quantity && truth.quantity->number == *number;
         });
}

Grade Grader::grade(std::string_view response) const {
  const std::string plain = plain_text(response);
  const auto mark = find_mark(rule_, plain);
  const bool heading = mark && mark->mark == MarkedAnswer::Mark::kHeading;
  Grade grade;
  if (mark && mark->mark == MarkedAnswer::Mark::kHashes) {
    grade.correct = right_line(mark->text, mark->value);
  } else if (mark) {
    grade.correct = right(parse_expression(mark->text));
  }
  grade.marked = mark && (!heading || grade.correct);
  if (flexible_ && !grade.correct && (!mark || heading))
    grade.correct = right_number(without_headings(plain));
  return grade;
}

bool Grader::can_be_met(std::string_view truth) const {
  const std::string text(truth);
  return grade("\\boxed{" + text + "}").correct ||
         (rule_ == proto::GSM8K && grade("#### " + text).correct);
}

}  // namespace orrery::actors
