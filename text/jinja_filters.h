// The filters, tests and functions of Jinja and of transformers. Internal to
// chat_template.h.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "text/jinja_machine.h"
#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// Throw UnsupportedTemplate for a name that is not supported.
void check_filter_name(const std::string& name);
void check_test_name(const std::string& name);

/// `value | name(arguments)`.
Value apply_filter(Machine& machine, const std::string& name, const Value& value,
                   const Arguments& arguments);
/// `value is name(arguments)`.
bool apply_test(Machine& machine, const std::string& name, const Value& value,
                const Arguments& arguments);

/// Apply a filter of texts and numbers, or one of sequences, and set `out`. False when
/// there is no such name.
bool apply_text_filter(Machine& machine, const std::string& name, const Value& value,
                       const Arguments& arguments, Value& out);
bool apply_sequence_filter(Machine& machine, const std::string& name, const Value& value,
                           const Arguments& arguments, Value& out);
bool is_text_filter(std::string_view name);
bool is_sequence_filter(std::string_view name);

/// A function that looks up an attribute path such as "a.0.b" in a value. It returns
/// `fallback` instead of undefined, unless that is None.
std::function<Value(Machine&, const Value&)> attribute_getter(const Value& attribute,
                                                              const Value& fallback);

/// The meaning of a name that no variable has: range, namespace, dict, joiner,
/// raise_exception; undefined for others. Throws UnsupportedTemplate for a function of
/// Jinja that is not supported.
Value global_function(const std::string& name);
/// The function strftime_now with `date` as today ("2025-07-26" or "2025-07-26
/// 12:34:56"). Throws Error for another form.
Value date_function(const std::string& date);

}  // namespace orrery::text::jinja
