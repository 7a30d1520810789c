// Characters as bytes. Whether a char is signed depends on the machine, so comparing
// one with a number needs this conversion first.
#pragma once

#include <cstdint>

namespace orrery {

constexpr uint8_t byte_of(char c) { return static_cast<uint8_t>(c); }

/// ASCII control characters: tabs, line ends, escapes and the like. They are replaced
/// where a text from outside becomes part of a one-line message.
constexpr bool is_control(char c) { return byte_of(c) < 0x20; }

}  // namespace orrery
