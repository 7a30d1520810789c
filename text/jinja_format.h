// Python's two ways to format text: "%s" % values and "{}".format(values). Internal to
// chat_template.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/jinja_machine.h"
#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// `format % values`, where the values are a tuple's items, a dict's members by name,
/// or one value. Throws Error where Python raises.
Value format_percent(Machine& machine, const Value& format, const Value& values);
/// `format.format(...)`. Members and items ({0.name}, {0[key]}) are looked up as in an
/// expression of the template.
Value format_braces(Machine& machine, const Value& format, const Arguments& arguments);
/// A float as C's printf writes it; Python writes the same.
std::string format_real(double value, char kind, int64_t precision, bool alternate = false);

}  // namespace orrery::text::jinja
