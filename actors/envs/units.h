// The closed list of words that may stand beside a number in an answer without changing
// the number: units of measure, currencies, and everyday things that are counted. A
// word that is not listed may say anything (3 thirds, 5 dozen, 12 factorial, 3i), so an
// answer with such a word is compared as text.
#pragma once

#include <string>
#include <string_view>

namespace orrery::actors {

/// Returns the one name of a unit in any number and spelling: "centimeter" for cm,
/// centimeters and centimetres, "foot" for ft and feet, "$" for dollars. Empty for any
/// other word. A single letter is not a word.
std::string unit_name(std::string_view word);

/// Returns the unit that an upright letter stands for (m, g, s, h, L, ...) where it
/// cannot be a variable; else empty.
std::string_view letter_unit(char letter);

/// Whether such a name is a measure, which can be squared and cubed, and not a thing
/// that is counted.
bool is_measure(std::string_view name);

/// Whether a word is an abbreviation that is not a product of variables even right
/// behind digits and in italics: 3cm, 5kg.
bool is_plain_abbreviation(std::string_view word);

/// Whether a word says nothing about how many: "different", "total", ...
bool is_idle_adjective(std::string_view word);

}  // namespace orrery::actors
