// A number with what may stand beside it in an answer: a currency or percent sign,
// degrees, a unit.
//
// Only what units.h lists is a unit. A single letter is one when it is upright and
// apart from the number (5\text{ m}, 5\,\mathrm{g}) and never when it may be a variable
// (5m, 5\mathrm{m}, 3i); italic letters right behind the digits only where they are a
// known abbreviation (3cm). With any other word there is no quantity, but text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "actors/envs/number.h"

namespace orrery::actors {

struct Quantity {
  Number number;
  std::string unit;  ///< "centimeter", "foot^2", "mile/hour", "°", "%", "$"; empty without one
};

/// The quantity that all of `plain` is; nothing when it is not exactly one number with,
/// at most, a unit.
std::optional<Quantity> read_quantity(std::string_view plain);

/// An expression with digits without the upright unit behind it, which goes to `unit`:
/// 16\pi\text{ cm}^2.
std::string_view without_unit(std::string_view plain, std::string& unit);

/// What a sentence that goes on behind a number begins with.
struct LeadingUnit {
  std::string unit;    ///< empty when it is none
  bool words = false;  ///< whether it begins with words at all
};
LeadingUnit leading_unit(std::string_view plain);

/// Same number, and not two different units.
bool same(const Quantity& a, const Quantity& b);

}  // namespace orrery::actors
