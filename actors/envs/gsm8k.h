// Questions whose answers a program can check, from JSONL: rows of GSM8K, MATH and
// verl.
//
// A row is read by the first of these layouts that it has:
//   verl    prompt (text or chat messages) and reward_model.ground_truth (text, a
//           number, or a list in which each is right)
//   GSM8K   question; answer, which ends in "#### number"
//   MATH    problem; answer, or a solution with its answer in \boxed{}; the solution is
//           what a teacher would say
// A row is graded by data.reward_rule, else by its data_source's rule, else by its
// layout's (envs/reward_rule.h). The reward is 1 for a right answer and 0 otherwise;
// "correct" and "format" (the answer is marked) are reported beside it. A row cannot be
// used if no response could meet its ground truth. A row whose data_source has no rule
// is a usage error, whatever data.on_error says.
#pragma once

#include <memory>

#include "actors/environment.h"

namespace orrery::actors {

/// Reads data.train_files and data.val_files, as make_environment does. `data` need not
/// outlive the environment.
std::unique_ptr<Environment> make_gsm8k(const proto::DataSection& data);

}  // namespace orrery::actors
