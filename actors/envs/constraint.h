// Stories with constraints that a program can check: they contain given words, keep to
// a length, end with a text. They are for models that can write stories and nothing
// else.
//
// The reward is the mean over the active constraints. "contains" counts as the share of
// the required words that are found (as whole words, in any case).
#pragma once

#include "actors/environment.h"

namespace orrery::actors {

std::unique_ptr<Environment> make_constraint(const proto::ConstraintSection& config, uint64_t seed);

}  // namespace orrery::actors
