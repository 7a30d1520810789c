// Generated arithmetic problems. Item (split, index) is a pure function of (seed,
// split, index); operand pairs are split by a keyed hash into training and held-out
// ones, so the two never meet.
//
// Bare form (default): prompt "07+15=", answer "022": operands with leading zeros to
// `digits`, sums to digits
// + 1, products to 2 * digits, differences with a sign ("+08", "-08") when zero_pad; plain numbers otherwise.
// The response must equal the answer. In words: "What is 7 + 15? ...", and the
// response's last number must.
#pragma once

#include "actors/environment.h"

namespace orrery::actors {

std::unique_ptr<Environment> make_arithmetic(const proto::ArithmeticSection& config, uint64_t seed);

}  // namespace orrery::actors
