// Stories with constraints that a program can check: contain given words, keep to a
// length, end with a text. For models that can write stories and nothing else.
//
// Reward: the mean over the active constraints; "contains" counts as the share of
// required words found (whole words, any case).
#pragma once

#include "actors/environment.h"

namespace orrery::actors {

std::unique_ptr<Environment> make_constraint(const proto::ConstraintSection& config, uint64_t seed);

}  // namespace orrery::actors
