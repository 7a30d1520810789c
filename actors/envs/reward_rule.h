// The rules that grade an answer against a ground truth, and which data_source has
// which rule.
//
//   gsm8k       The last marked answer (answer.h) counts: behind "####" the number that
//               the line says, in a box the whole of it. What is not a number is
//               compared as text.
//   math-boxed  The last \boxed{} (or \fbox{}) counts, as a number or as LaTeX.
//
// With flexible extraction, a response without a mark answers with its last number.
// Numbers, units and LaTeX are compared as expression.h says. A ground truth may itself
// be marked: "#### 5", "so \boxed{5}".
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/envs/expression.h"
#include "proto/config.pb.h"

namespace orrery::actors {

/// Returns the rule of a data_source, in any case, or nothing; never AUTO.
std::optional<proto::RewardRule> rule_of_source(std::string_view data_source);

/// Returns the names that rule_of_source() knows, for a message.
std::string known_sources();

struct Grade {
  bool correct = false;
  bool marked = false;  ///< the response has a marked answer
};

/// Grades responses to one question. Immutable.
class Grader {
 public:
  /// `truths` are answers, each of which is right. With `extraction` AUTO the rule
  /// decides: gsm8k is flexible, math-boxed is not.
  Grader(proto::RewardRule rule, proto::DataSection::AnswerExtraction extraction,
         const std::vector<std::string>& truths);

  /// Grades a response in time linear in its length.
  Grade grade(std::string_view response) const;

  /// Whether a response that answers with `truth` can earn the reward. With an empty
  /// truth it never can.
  bool can_be_met(std::string_view truth) const;

 private:
  bool right(const Expression& answer) const;
  bool right_line(std::string_view line, std::string_view value) const;
  bool right_number(std::string_view plain) const;

  proto::RewardRule rule_;
  bool flexible_;
  std::vector<Expression> truths_;
};

}  // namespace orrery::actors
