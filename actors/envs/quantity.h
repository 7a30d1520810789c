// A number with what may stand beside it in an answer: a currency or percent sign, degrees, a unit.
//
// Behind a number a unit is \text{...}, a known short one (cm, kg), or words apart from it (".75 meters");
// letters that may be variables (2k, 3ab) are none, and neither are words that go on (3 or x).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "actors/envs/number.h"

namespace orrery {

struct Quantity {
  Number number;
  std::string unit;  ///< "cm", "°", "%", "$"; empty without one
};

/// The quantity that all of `plain` is; nothing when it is not exactly one number with, at most, a unit.
std::optional<Quantity> read_quantity(std::string_view plain);

/// The words that `plain` begins with, spelled as units are: to find a unit in a sentence.
std::string leading_words(std::string_view plain);

/// Same number, and not two different units.
bool same(const Quantity& a, const Quantity& b);

}  // namespace orrery
