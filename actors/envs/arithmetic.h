// Generated arithmetic problems. Item (split, index) is a pure function of (seed,
// split, index). A keyed hash splits the pairs of operands into training and held-out
// ones, so the two sets never meet.
//
// The bare form is the default: prompt "07+15=", answer "022". With zero_pad, operands
// have leading zeros up to `digits` digits, sums up to digits + 1 and products up to 2
// * digits, and differences have a sign ("+08", "-08"); without it, numbers are plain.
// The response must equal the answer. The other form is in words, "What is 7 plus 15?
// ...", and the response's last number must equal the answer.
#pragma once

#include "actors/environment.h"

namespace orrery::actors {

std::unique_ptr<Environment> make_arithmetic(const proto::ArithmeticSection& config, uint64_t seed);

}  // namespace orrery::actors
