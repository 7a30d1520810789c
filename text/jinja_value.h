// Values of chat templates, with Python's meaning of truth, equality, order and text.
// Copies are cheap: texts, lists and dicts are shared and never change. What can change
// (a namespace, an iterator, a loop) may not be held by another value in a way that
// closes a circle, and nesting is bounded, so that values can be walked and freed by
// recursion. Internal to chat_template.h.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace orrery::text::jinja {

class Value;
class Machine;
using List = std::vector<Value>;
using Members = std::vector<std::pair<Value, Value>>;

/// How much a value holds: what bounds the stack and the time that walking it takes.
struct Extent {
  int depth = 0;  ///< of containers in it
  size_t weight =
      0;  ///< bytes of its texts and some for every value, each as often as it occurs; saturating
};

/// What a call, a filter or a test is given.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

struct Text;
struct Sequence;
struct Dict;
struct Namespace;
struct Iterator;
struct Callable;
struct Loop;

struct Undefined {
  std::shared_ptr<const std::string> reason;  ///< what an error says of it; may be null
};
struct None {};

/// What Python calls the sequences that templates meet.
enum class SequenceKind { kList, kTuple, kGroup, kKeys, kValues, kItems, kRange };

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                            std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
                            std::shared_ptr<Namespace>, std::shared_ptr<Iterator>,
                            std::shared_ptr<const Callable>, std::shared_ptr<Loop>>;

  Value() = default;
  template <class T>
  Value(T data)
      : data_(std::move(data)) {
  }                         // NOLINT(google-explicit-constructor): a value is any of its kinds
  Value(std::string text);  // NOLINT(google-explicit-constructor): as above
  Value(std::string_view text)
      : Value(std::string(text)) {}  // NOLINT(google-explicit-constructor): as above
  Value(const char*) = delete;
  /// Text that says of itself that it is HTML: what else is added to it gets escaped.
  static Value markup(std::string text);
  /// These throw Error for values nested too deep, and for a namespace inside.
  static Value list(List items) { return sequence(SequenceKind::kList, std::move(items)); }
  static Value tuple(List items) { return sequence(SequenceKind::kTuple, std::move(items)); }
  static Value sequence(SequenceKind kind, List items);
  static Value range(int64_t start, int64_t stop, int64_t step);
  /// Of equal keys the first keeps its place and the last gives the value. Throws Error
  /// for a key that cannot be one.
  static Value dict(Members members);
  static Value make_namespace(std::map<std::string, Value> members);
  /// A generator. `held` is what `next` goes through or keeps.
  static Value iterator(std::function<bool(Value&)> next, const std::vector<Value>& held);
  static Value callable(std::string name, std::function<Value(Machine&, const Arguments&)> call,
                        const std::vector<Value>& held = {});
  static Value undefined(std::string reason);

  template <class T>
  const T* as() const {
    return std::get_if<T>(&data_);
  }
  const std::string* string() const;
  bool is_markup() const;
  const int64_t* integer() const { return as<int64_t>(); }
  const double* real() const { return as<double>(); }
  /// Any sequence's items.
  const List* items() const;
  const Sequence* sequence() const;
  bool is(SequenceKind kind) const;
  const Dict* dict() const;
  Namespace* name_space() const;
  Iterator* iterator() const;
  const Callable* callable() const;
  Loop* loop() const;
  Extent extent() const;

  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<None>() != nullptr; }
  /// An int or a bool as Python counts with it.
  bool whole(int64_t& out) const;
  /// An int, a bool or a float.
  bool number(double& out) const;
  bool truth() const;
  /// Python's name of the kind, for messages.
  std::string kind() const;
  /// The very same object, as `is` means it.
  bool same(const Value& other) const;
  /// By value, as Python compares: 1 == 1.0 == True, a list is no tuple, dicts in any
  /// order.
  bool operator==(const Value& other) const;

 private:
  Data data_;
};

struct Text {
  std::string text;
  bool markup = false;
};

struct Sequence {
  SequenceKind kind;
  List items;
  Extent extent;
  std::array<int64_t, 3> range{};  // start, stop, step of a range
};

struct Dict {
  Members members;
  Extent extent;
  std::unordered_map<std::string, size_t> index;  // of large dicts, by hash_key
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::map<std::string, Value> members;
  /// Throws Error for a namespace inside.
  void set(const std::string& name, Value value);
};

struct Iterator {
  std::function<bool(Value&)> next;  // false at the end
  Extent extent;
};

struct Callable {
  std::string name;
  std::function<Value(Machine&, const Arguments&)> call;
  Extent extent;
};

/// The `loop` of a for.
struct Loop {
  List items;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  bool called_changed = false;
  List last_changed;
  std::function<std::string(const Value&)> recurse;  // of a recursive loop
};

/// Throws Error when the value is a namespace, which nothing may hold.
void check_no_namespace(const Value& value);
/// The same text for equal keys, a different one for others. Throws Error for what is
/// not hashable.
std::string hash_key(const Value& value);

}  // namespace orrery::text::jinja
