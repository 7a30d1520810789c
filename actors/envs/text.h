// Reading answers out of text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace orrery {

/// Without white space at both ends.
std::string_view strip(std::string_view text);

/// A number as it is compared: no thousands separators, currency or percent signs, no leading zeros or plus,
/// no trailing zeros behind a decimal point, no trailing full stop: "$1,234.50." -> "1234.5", "-0" -> "0".
/// Fractions a/b keep their form. Nothing when the text is not one number.
std::optional<std::string> normalize_number(std::string_view text);

/// The last number in a text, normalised.
std::optional<std::string> last_number(std::string_view text);

}  // namespace orrery
