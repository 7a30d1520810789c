// The filters, tests and methods of chat templates. Internal to chat_template.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/jinja_value.h"

namespace orrery::jinja {

/// `value | name(arguments)`. Throws Error for a name that is not supported.
Value apply_filter(const std::string& name, const Value& value, const std::vector<Value>& arguments);
/// `value is name(arguments)`.
bool apply_test(const std::string& name, const Value& value, const std::vector<Value>& arguments);
/// `value.name(arguments)` of strings and dicts.
Value call_method(const Value& value, const std::string& name, const std::vector<Value>& arguments);
/// `left operation right` for everything but and, or.
Value apply_binary(const std::string& operation, const Value& left, const Value& right);
/// `value[key]`; undefined where there is no such item.
Value item_of(const Value& value, const Value& key);
/// `value[begin:end:step]`; undefined parts are absent.
Value slice_of(const Value& value, const Value& begin, const Value& end, const Value& step);
/// What a for loop walks over: items of a list, keys of a dict, characters of a string.
List items_of(const Value& value);

}  // namespace orrery::jinja
