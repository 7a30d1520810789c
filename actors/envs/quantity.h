// A number together with what may stand beside it in an answer: a currency or percent
// sign, degrees, a unit.
//
// Only what units.h lists is a unit. A single letter is a unit when it is upright and
// apart from the number (5\text{ m}, 5\,\mathrm{g}), and never when it may be a
// variable (5m, 5\mathrm{m}, 3i). Italic letters right behind the digits are a unit
// only if they are a known abbreviation (3cm). A number with any other word is text and
// not a quantity.
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

/// Reads all of `plain` as a quantity; nothing when it is not exactly one number with,
/// at most, a unit.
std::optional<Quantity> read_quantity(std::string_view plain);

/// Cuts off the upright unit behind an expression with digits, as in
/// 16\pi\text{ cm}^2, and stores it in `unit`.
std::string_view without_unit(std::string_view plain, std::string& unit);

/// The beginning of a sentence that goes on behind a number.
struct LeadingUnit {
  std::string unit;    ///< empty when it does not begin with a unit
  bool words = false;  ///< whether it begins with words at all
};
LeadingUnit leading_unit(std::string_view plain);

/// Whether the numbers are the same and the units do not differ.
bool same(const Quantity& a, const Quantity& b);

}  // namespace orrery::actors
