#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "text/jinja_error.h"

namespace orrery::text::jinja {

namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kValueWeight = 32;
constexpr size_t kIndexedDict = 8;

/// Adds a value that a container holds to the container's extent.
void add(Extent& extent, const Value& value) {
  check_no_namespace(value);
  const Extent inner = value.extent();
  extent.depth = std::max(extent.depth, inner.depth + 1);
  if (extent.depth > kMaxDepth) fail("lists and dicts nested too deep");
  if (__builtin_add_overflow(extent.weight, inner.weight, &extent.weight)) extent.weight = SIZE_MAX;
}

template <class T>
const T* pointee(const std::shared_ptr<T>* pointer) {
  return pointer == nullptr ? nullptr : pointer->get();
}

bool equal_dicts(const Dict& left, const Dict& right) {
  if (left.members.size() != right.members.size()) return false;
  return std::all_of(left.members.begin(), left.members.end(), [&](const auto& member) {
    const Value* other = right.find(member.first);
    return other != nullptr && member.second == *other;
  });
}

SequenceKind family(SequenceKind kind) {
  return kind == SequenceKind::kGroup ? SequenceKind::kTuple : kind;
}

}  // namespace

void check_no_namespace(const Value& value) {
  if (value.name_space() != nullptr)
    fail_unsupported("a namespace inside another value is not supported");
}

std::string hash_key(const Value& value) {
  if (const auto* text = value.string()) return "s" + *text;
  int64_t whole = 0;
  if (value.whole(whole)) return "n" + std::to_string(whole);
  if (const double* real = value.real()) {
    if (*real == std::floor(*real) && std::abs(*real) < 9.2e18)
      return "n" + std::to_string(static_cast<int64_t>(*real));
    return fmt::format("f{}", *real);
  }
  if (value.is_none()) return "N";
  if (value.is_undefined()) return "U";
  if (value.is(SequenceKind::kTuple) || value.is(SequenceKind::kGroup)) {
    std::string out = "(";
    for (const Value& item : *value.items()) {
      const std::string key = hash_key(item);
      out += std::to_string(key.size()) + ":" + key;
    }
    return out + ")";
  }
  fail("a dict key that is {}", value.kind());
}

const Value* Dict::find(const Value& key) const {
  if (const auto* text = key.string()) return find(std::string_view(*text));
  const std::string wanted = hash_key(key);
  if (!index.empty()) {
    const auto found = index.find(wanted);
    return found == index.end() ? nullptr : &members[found->second].second;
  }
  for (const auto& [name, value] : members) {
    if (name.string() == nullptr && hash_key(name) == wanted) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (!index.empty()) {
    const auto found = index.find("s" + std::string(key));
    return found == index.end() ? nullptr : &members[found->second].second;
  }
  for (const auto& [name, value] : members) {
    if (name.string() != nullptr && *name.string() == key) return &value;
  }
  return nullptr;
}

void Namespace::set(const std::string& name, Value value) {
  check_no_namespace(value);
  members[name] = std::move(value);
}

Value::Value(std::string text)
    : data_(std::make_shared<const Text>(Text{std::move(text), false})) {}

Value Value::markup(std::string text) {
  return std::make_shared<const Text>(Text{std::move(text), true});
}

Value Value::sequence(SequenceKind kind, List items) {
  Extent extent{1, kValueWeight};
  for (const Value& item : items) add(extent, item);
  return std::make_shared<const Sequence>(Sequence{kind, std::move(items), extent, {}});
}

Value Value::range(int64_t start, int64_t stop, int64_t step) {
  List items;
  for (__int128 i = start; step > 0 ? i < stop : i > stop; i += step)
    items.emplace_back(static_cast<int64_t>(i));
  const Extent extent{1, kValueWeight * (items.size() + 1)};
  return std::make_shared<const Sequence>(
      Sequence{SequenceKind::kRange, std::move(items), extent, {start, stop, step}});
}

Value Value::dict(Members members) {
  Dict dict{{}, {1, kValueWeight}, {}};
  for (auto& member : members) {
    const auto [at, fresh] = dict.index.emplace(hash_key(member.first), dict.members.size());
    if (fresh) {
      dict.members.push_back(std::move(member));
    } else {
      dict.members[at->second].second = std::move(member.second);
    }
  }
  if (dict.members.size() <= kIndexedDict) dict.index.clear();
  for (const auto& [key, value] : dict.members) {
    add(dict.extent, key);
    add(dict.extent, value);
  }
  return std::make_shared<const Dict>(std::move(dict));
}

Value Value::make_namespace(std::map<std::string, Value> members) {
  for (const auto& [name, value] : members) check_no_namespace(value);
  return std::make_shared<Namespace>(Namespace{std::move(members)});
}

Value Value::iterator(std::function<bool(Value&)> next, const std::vector<Value>& held) {
  Extent extent{1, kValueWeight};
  for (const Value& value : held) add(extent, value);
  return std::make_shared<Iterator>(Iterator{std::move(next), extent});
}

Value Value::callable(std::string name, std::function<Value(Machine&, const Arguments&)> call,
                      const std::vector<Value>& held) {
  Extent extent{1, kValueWeight};
  for (const Value& value : held) add(extent, value);
  return std::make_shared<const Callable>(Callable{std::move(name), std::move(call), extent});
}

Value Value::undefined(std::string reason) {
  return Undefined{std::make_shared<const std::string>(std::move(reason))};
}

const std::string* Value::string() const {
  const Text* text = pointee(as<std::shared_ptr<const Text>>());
  return text == nullptr ? nullptr : &text->text;
}
bool Value::is_markup() const {
  const Text* text = pointee(as<std::shared_ptr<const Text>>());
  return text != nullptr && text->markup;
}
const Sequence* Value::sequence() const { return pointee(as<std::shared_ptr<const Sequence>>()); }
const List* Value::items() const {
  const Sequence* all = sequence();
  return all == nullptr ? nullptr : &all->items;
}
bool Value::is(SequenceKind kind) const {
  const Sequence* all = sequence();
  return all != nullptr && all->kind == kind;
}
const Dict* Value::dict() const { return pointee(as<std::shared_ptr<const Dict>>()); }
Namespace* Value::name_space() const {
  const auto* pointer = as<std::shared_ptr<Namespace>>();
  return pointer == nullptr ? nullptr : pointer->get();
}
Iterator* Value::iterator() const {
  const auto* pointer = as<std::shared_ptr<Iterator>>();
  return pointer == nullptr ? nullptr : pointer->get();
}
const Callable* Value::callable() const { return pointee(as<std::shared_ptr<const Callable>>()); }
Loop* Value::loop() const {
  const auto* pointer = as<std::shared_ptr<Loop>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

Extent Value::extent() const {
  if (const auto* text = string()) return {0, kValueWeight + text->size()};
  if (const Sequence* all = sequence()) return all->extent;
  if (const Dict* members = dict()) return members->extent;
  if (const Iterator* generator = iterator()) return generator->extent;
  if (const Callable* function = callable()) return function->extent;
  if (const Loop* state = loop()) return {2, kValueWeight * (state->items.size() + 1)};
  return {0, kValueWeight};
}

bool Value::whole(int64_t& out) const {
  if (const auto* flag = as<bool>()) return out = *flag ? 1 : 0, true;
  if (const auto* integer = as<int64_t>()) return out = *integer, true;
  return false;
}

bool Value::number(double& out) const {
  int64_t integer = 0;
  if (whole(integer)) return out = integer, true;
  if (const double* value = real()) return out = *value, true;
  return false;
}

bool Value::truth() const {
  int64_t integer = 0;
  if (whole(integer)) return integer != 0;
  if (const double* value = real()) return *value != 0;
  if (const auto* text = string()) return !text->empty();
  if (const List* all = items()) return !all->empty();
  if (const Dict* members = dict()) return !members->members.empty();
  return !is_undefined() && !is_none();
}

std::string Value::kind() const {
  if (const Sequence* all = sequence()) {
    static constexpr const char* kNames[] = {
        "a list",           "a tuple",         "a tuple", "a view of keys",
        "a view of values", "a view of items", "a range"};
    return kNames[static_cast<size_t>(all->kind)];
  }
  if (const auto* nothing = as<Undefined>())
    return nothing->reason == nullptr ? "an undefined value"
                                      : "an undefined value (" + *nothing->reason + ")";
  static constexpr const char* kNames[] = {
      "", "None",   "a boolean",   "an integer",  "a float",    "a string",
      "", "a dict", "a namespace", "an iterator", "a function", "a loop"};
  return kNames[data_.index()];
}

bool Value::same(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  return std::visit(
      [&](const auto& mine) {
        using T = std::decay_t<decltype(mine)>;
        const T& theirs = *other.as<T>();
        if constexpr (std::is_same_v<T, Undefined>) {
          return mine.reason == theirs.reason;
        } else if constexpr (std::is_same_v<T, None>) {
          return true;
        } else {
          return mine == theirs;
        }
      },
      data_);
}

bool Value::operator==(const Value& other) const {
  int64_t left = 0, right = 0;
  double low = 0, high = 0;
  if (whole(left) && other.whole(right)) return left == right;
  if (number(low)) {
    if (!other.number(high)) return false;
    // Comparing as whole numbers is exact, where a double could not hold a large one.
    const bool mine = whole(left), theirs = other.whole(right);
    const double real_part = mine ? high : low;
    if (mine != theirs && std::abs(real_part) < 9.2e18 && real_part == std::floor(real_part))
      return static_cast<int64_t>(real_part) == (mine ? left : right);
    return low == high;
  }
  if (data_.index() != other.data_.index()) return false;
  if (const auto* text = string()) return *text == *other.string();
  if (const Sequence* all = sequence()) {
    const Sequence& others = *other.sequence();
    if (family(all->kind) != family(others.kind)) return false;
    if (all->kind == SequenceKind::kValues) return all == &others;
    if (all->kind == SequenceKind::kKeys || all->kind == SequenceKind::kItems)
      fail_unsupported("comparing the keys or items of dicts is not supported");
    return all->items == others.items;
  }
  if (const Dict* members = dict()) return equal_dicts(*members, *other.dict());
  return is_undefined() || same(other);
}

}  // namespace orrery::text::jinja
