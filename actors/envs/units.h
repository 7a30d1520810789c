// The closed list of words that may stand beside a number in an answer and leave it the
// number that it is: units of measure, currencies, and everyday things that are
// counted. A word that is not here may say anything (3 thirds, 5 dozen, 12 factorial,
// 3i), so an answer with it is compared as text.
#pragma once

#include <string>
#include <string_view>

namespace orrery::actors {

/// The one name of a unit, whatever its number and spelling: "centimeter" of cm,
/// centimeters and centimetres, "foot" of ft and feet, "$" of dollars; empty for any
/// other word. A single letter is no word.
std::string unit_name(std::string_view word);

/// The unit that an upright letter is (m, g, s, h, L, ...), where a variable cannot be
/// meant; else empty.
std::string_view letter_unit(char letter);

/// Whether that name is a measure, which has squares and cubes, and nothing that is
/// counted.
bool is_measure(std::string_view name);

/// Abbreviations that are no product of variables even when they follow digits in
/// italics: 3cm, 5kg.
bool is_plain_abbreviation(std::string_view word);

/// "different", "total", ...: say nothing about how many.
bool is_idle_adjective(std::string_view word);

}  // namespace orrery::actors
