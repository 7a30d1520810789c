// Whether digits stand for themselves or are part of something larger: a time, a date,
// a power, a product.
#pragma once

#include <cstddef>
#include <string_view>

namespace orrery::actors {

/// What stands before the number that begins at `begin` (with its sign) takes it in:
/// x^2, a_1, x/2, \sqrt{5},
/// \pm 5.
bool taken_in_from_left(std::string_view plain, size_t begin);

/// What stands behind the number that ends at `end` takes it in: 12:30, 1.2.3, 12h30,
/// 3\mathrm{i}, 2^5, 52_8, 5x, 3\sqrt2, 6 - 5i, 2(x+1). Moves `end` behind further
/// digits that are joined by : . or /
bool taken_in_from_right(std::string_view plain, size_t& end);

}  // namespace orrery::actors
