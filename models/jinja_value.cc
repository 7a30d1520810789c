#include "models/jinja_value.h"

#include <algorithm>
#include <stdexcept>

#include "core/error.h"

namespace orrery::jinja {

namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kValueWeight = 32;

/// A container's extent grows by a value that it gets to hold.
void add(Extent& extent, const Value& value) {
  if (value.dict() != nullptr && value.dict()->is_namespace) fail("a namespace inside another value");
  const Extent inner = value.extent();
  extent.depth = std::max(extent.depth, inner.depth + 1);
  if (extent.depth > kMaxDepth) fail("lists and dicts nested too deep");
  if (__builtin_add_overflow(extent.weight, inner.weight, &extent.weight)) extent.weight = SIZE_MAX;
}

Dict make_dict(Members members, bool is_namespace) {
  Dict dict{{}, {0, kValueWeight}, is_namespace};
  for (const auto& [key, value] : members) add(dict.extent, value);
  dict.members = std::move(members);
  return dict;
}

}  // namespace

const Value* Dict::find(const std::string& key) const {
  const auto found =
      std::find_if(members.begin(), members.end(), [&](const auto& member) { return member.first == key; });
  return found == members.end() ? nullptr : &found->second;
}

Value Value::list(List items) {
  Extent extent{1, kValueWeight};
  for (const Value& item : items) add(extent, item);
  return std::make_shared<const SharedList>(SharedList{std::move(items), extent});
}

Value Value::dict(Members members) { return std::make_shared<Dict>(make_dict(std::move(members), false)); }

Value Value::make_namespace(Members members) {
  return std::make_shared<Dict>(make_dict(std::move(members), true));
}

bool Value::set_member(const std::string& key, Value value) const {
  const auto* pointer = as<std::shared_ptr<Dict>>();
  if (pointer == nullptr || !(*pointer)->is_namespace) return false;
  Dict& space = **pointer;
  add(space.extent, value);
  const auto found = std::find_if(space.members.begin(), space.members.end(),
                                  [&](const auto& member) { return member.first == key; });
  if (found == space.members.end()) {
    space.members.emplace_back(key, std::move(value));
  } else {
    found->second = std::move(value);
  }
  return true;
}

const std::string* Value::string() const {
  const auto* pointer = as<std::shared_ptr<const std::string>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

const List* Value::list() const {
  const auto* pointer = as<std::shared_ptr<const SharedList>>();
  return pointer == nullptr ? nullptr : &(*pointer)->items;
}

const Dict* Value::dict() const {
  const auto* pointer = as<std::shared_ptr<Dict>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

Extent Value::extent() const {
  if (const auto* text = string()) return {0, kValueWeight + text->size()};
  if (const auto* items = as<std::shared_ptr<const SharedList>>()) return (*items)->extent;
  if (const Dict* members = dict()) return members->extent;
  return {0, kValueWeight};
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
