#include "models/jinja_value.h"

#include <algorithm>
#include <stdexcept>

namespace orrery::jinja {

Value* Dict::find(const std::string& key) {
  const auto found =
      std::find_if(members.begin(), members.end(), [&](const auto& member) { return member.first == key; });
  return found == members.end() ? nullptr : &found->second;
}

void Dict::set(const std::string& key, Value value) {
  if (Value* existing = find(key)) {
    *existing = std::move(value);
  } else {
    members.emplace_back(key, std::move(value));
  }
}

const List* Value::list() const {
  const auto* pointer = as<std::shared_ptr<const List>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

Dict* Value::dict() const {
  const auto* pointer = as<std::shared_ptr<Dict>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

bool Value::truth() const {
  if (const auto* flag = as<bool>()) return *flag;
  if (const auto* number = integer()) return *number != 0;
  if (const auto* text = string()) return !text->empty();
  if (const List* items = list()) return !items->empty();
  if (const Dict* members = dict()) return !members->members.empty();
  return false;
}

const char* Value::kind() const {
  static constexpr const char* kNames[] = {"an undefined value", "None",   "a boolean", "a number",
                                           "a string",           "a list", "a dict"};
  return kNames[data_.index()];
}

std::string Value::print() const {
  if (is_undefined()) return "";
  if (is_none()) return "None";
  if (const auto* flag = as<bool>()) return *flag ? "True" : "False";
  if (const auto* number = integer()) return std::to_string(*number);
  if (const auto* text = string()) return *text;
  throw std::invalid_argument(std::string("printing ") + kind());
}

bool Value::operator==(const Value& other) const {
  // In Python True == 1, and nothing else of different kinds is equal.
  const auto number = [](const Value& value, int64_t& out) {
    if (const auto* flag = value.as<bool>()) return out = *flag ? 1 : 0, true;
    if (const auto* integer = value.integer()) return out = *integer, true;
    return false;
  };
  int64_t left = 0, right = 0;
  if (number(*this, left)) return number(other, right) && left == right;
  if (data_.index() != other.data_.index()) return false;
  if (const auto* text = string()) return *text == *other.string();
  if (const List* items = list()) return *items == *other.list();
  if (const Dict* members = dict()) return members == other.dict();
  return true;
}

}  // namespace orrery::jinja
