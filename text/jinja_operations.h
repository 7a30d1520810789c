// Operators, members and items of values as Python and Jinja define them. All functions
// charge the machine for the data that they read and make, and throw Error where Python
// raises. Internal to chat_template.h.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "text/jinja_machine.h"
#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// The operators + - * / // % **.
Value arithmetic(Machine& machine, std::string_view operation, const Value& left,
                 const Value& right);
Value negative(const Value& value);
Value positive(const Value& value);
/// The operators == != < <= > >= in notin.
bool compare(Machine& machine, std::string_view operation, const Value& left, const Value& right);
/// Python's <. Throws Error for kinds that have no order.
bool less(const Value& left, const Value& right);
bool contains(Machine& machine, const Value& container, const Value& value);

/// `value.name` and `value[key]`. Undefined where there is no such member.
Value attribute_of(Machine& machine, const Value& value, const std::string& name);
Value item_of(Machine& machine, const Value& value, const Value& key);
/// `value[begin:end:step]`. A part that is None is absent.
Value slice_of(Machine& machine, const Value& value, const Value& begin, const Value& end,
               const Value& step);

/// A function that gives the items one after the other and returns false at the end.
/// Throws Error for a value that is not iterable.
std::function<bool(Value&)> iterate(Machine& machine, const Value& value);
bool is_iterable(const Value& value);
/// All items. An iterator is empty afterwards.
List items_of(Machine& machine, const Value& value);
/// Python's len().
int64_t length_of(const Value& value);

/// Whether `name` is a method of the value's Python type that templates may call.
bool has_method(const Value& value, std::string_view name);
Value call_method(Machine& machine, const Value& value, const std::string& name,
                  const Arguments& arguments);
/// Calls a function, a macro or a loop.
Value call_value(Machine& machine, const Value& callee, const Arguments& arguments);

}  // namespace orrery::text::jinja
