// Questions with an answer that a program can check, from JSONL: GSM8K, MATH and verl's
// rows.
//
// A row is read by the first of these layouts that it has:
//   verl    prompt (text or chat messages) and reward_model.ground_truth (text, a number, or a list of which
//   any is right) GSM8K   question; answer, which ends in "#### number" MATH    problem; answer, or a
//   solution with a \boxed{} one; the solution is what a teacher would say
// Which rule grades it (envs/reward_rule.h): data.reward_rule, else its data_source's,
// else its layout's. Reward 1 for a right answer, else 0; "correct" and "format" (a
// marked answer) are reported beside it. A row whose ground truth no response could
// meet cannot be used; one whose data_source has no rule is a usage error whatever
// data.on_error says.
#pragma once

#include <memory>

#include "actors/environment.h"

namespace orrery::actors {

std::unique_ptr<Environment> make_gsm8k(const proto::DataSection& data);

}  // namespace orrery::actors
