// Tells whether digits stand for themselves or are part of something larger: a time, a
// date, a power, a product.
#pragma once

#include <cstddef>
#include <string_view>

namespace orrery::actors {

/// Whether the number that begins at `begin` (with its sign) belongs to what stands
/// before it: x^2, a_1, x/2, \sqrt{5}, \pm 5.
bool taken_in_from_left(std::string_view plain, size_t begin);

/// Whether the number that ends at `end` belongs to what stands behind it: 12:30,
/// 1.2.3, 12h30, 3\mathrm{i}, 2^5, 52_8, 5x, 3\sqrt2, 6 - 5i, 2(x+1). Moves `end`
/// behind further digits that are joined to it by ":", "." or "/".
bool taken_in_from_right(std::string_view plain, size_t& end);

}  // namespace orrery::actors
