// The rules that grade an answer against a ground truth, and which data_source has
// which.
//
//   gsm8k       the last marked answer (answer.h). Behind "####" the number that the line says counts, in a
//   box the
//               whole of it; what is no number is compared as text. Flexible: a response without a mark
//               answers with its last number.
//   math-boxed  the last \boxed{} (or \fbox{}), as a number or as LaTeX. Flexible: as above.
//
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

/// The rule of a data_source (any case), or nothing; never AUTO.
std::optional<proto::RewardRule> rule_of_source(std::string_view data_source);

/// The names that rule_of_source() knows, for a message.
std::string known_sources();

struct Grade {
  bool correct = false;
  bool marked = false;  ///< the response has a marked answer
};

/// Grades responses to one question. Immutable.
class Grader {
 public:
  /// `truths`: answers each of which is right. `extraction` AUTO: the rule's own.
  Grader(proto::RewardRule rule, proto::DataSection::AnswerExtraction extraction,
         const std::vector<std::string>& truths);

  /// Takes time linear in the response's length.
  Grade grade(std::string_view response) const;

  /// Whether a response that gives `truth` as its answer can earn anything: an empty
  /// truth never does.
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
