// The filters, tests and functions of Jinja and of transformers. Internal to
// chat_template.h.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "text/jinja_machine.h"
#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// Throw Error for a name that is not supported, saying so.
void check_filter_name(const std::string& name);
void check_test_name(const std::string& name);

/// `value | name(arguments)`.
Value apply_filter(Machine& machine, const std::string& name, const Value& value,
                   const Arguments& arguments);
/// `value is name(arguments)`.
bool apply_test(Machine& machine, const std::string& name, const Value& value,
                const Arguments& arguments);

/// The filters of texts and numbers, and those of sequences; false: no such name.
bool apply_text_filter(Machine& machine, const std::string& name, const Value& value,
                       const Arguments& arguments, Value& out);
bool apply_sequence_filter(Machine& machine, const std::string& name, const Value& value,
                           const Arguments& arguments, Value& out);
bool is_text_filter(std::string_view name);
bool is_sequence_filter(std::string_view name);

/// Gives what stands under "a.0.b" in a value; with a default, that instead of
/// undefined.
std::function<Value(Machine&, const Value&)> attribute_getter(const Value& attribute,
                                                              const Value& fallback);

/// What a name means that no variable has: range, namespace, dict, joiner,
/// raise_exception. Undefined for others. Throws Error for the functions of Jinja that
/// are not supported.
Value global_function(const std::string& name);
/// strftime_now as of `date` ("2025-07-26" or "2025-07-26 12:34:56"). Throws Error for
/// another form.
Value date_function(const std::string& date);

}  // namespace orrery::text::jinja
