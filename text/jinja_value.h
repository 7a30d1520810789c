// Values of chat templates. Truth, equality, order and text are Python's. Copies are
// cheap: texts, lists and dicts are shared and never change. A value that can change (a
// namespace, an iterator, a loop) may not be held by another value in a way that closes
// a circle, and nesting is bounded, so that recursion can walk and free every value.
// Internal to chat_template.h.
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

/// How much a value holds. It bounds the stack and the time that a walk takes.
struct Extent {
  /// How deep containers nest in it.
  int depth = 0;
  /// Bytes of its texts, and some for every value; each counts as often as it occurs.
  /// Saturates.
  size_t weight = 0;
};

/// The arguments of a call, a filter or a test.
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
  std::shared_ptr<const std::string> reason;  ///< for errors; may be null
};
struct None {};

/// The sequence types of Python that templates meet. A group is an item of groupby.
enum class SequenceKind { kList, kTuple, kGroup, kKeys, kValues, kItems, kRange };

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                            std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
                            std::shared_ptr<Namespace>, std::shared_ptr<Iterator>,
                            std::shared_ptr<const Callable>, std::shared_ptr<Loop>>;

  Value() = default;
  /// Implicit, because a value is any of its kinds.
  template <class T>
  Value(T data) : data_(std::move(data)) {}
  Value(std::string text);
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char*) = delete;
  /// Text that is marked as HTML: other text that is added to it gets escaped.
  static Value markup(std::string text);
  /// All below throw Error for values that are nested too deep and for a namespace as
  /// an item.
  static Value list(List items) { return sequence(SequenceKind::kList, std::move(items)); }
  static Value tuple(List items) { return sequence(SequenceKind::kTuple, std::move(items)); }
  static Value sequence(SequenceKind kind, List items);
  static Value range(int64_t start, int64_t stop, int64_t step);
  /// Among equal keys, the first determines the place and the last the value. Throws
  /// Error for a value that cannot be a key.
  static Value dict(Members members);
  static Value make_namespace(std::map<std::string, Value> members);
  /// A generator. `held` are the values that `next` reads or keeps.
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
  /// The items of a sequence of any kind; null for another value.
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
  /// An int, or a bool as the number that Python takes it for. False for other kinds.
  bool whole(int64_t& out) const;
  /// An int, a bool or a float. False for other kinds.
  bool number(double& out) const;
  bool truth() const;
  /// Python's name for the kind, for messages.
  std::string kind() const;
  /// Whether both are the same object: Python's `is`.
  bool same(const Value& other) const;
  /// Compares by value as Python does: 1 == 1.0 == True, a list does not equal a tuple,
  /// and the order of a dict's members does not count.
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
  std::array<int64_t, 3> range{};  // start, stop and step, for a range
};

struct Dict {
  Members members;
  Extent extent;
  std::unordered_map<std::string, size_t> index;  // by hash_key; empty in a small dict
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::map<std::string, Value> members;
  /// Throws Error when the value is a namespace.
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

/// The variable `loop` inside a for.
struct Loop {
  List items;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  bool called_changed = false;
  List last_changed;
  std::function<std::string(const Value&)> recurse;  // null unless the loop is recursive
};

/// Throws Error when the value is a namespace, which nothing may hold.
void check_no_namespace(const Value& value);
/// A text that is the same for equal keys and different for others. Throws Error for a
/// value that is not hashable.
std::string hash_key(const Value& value);

}  // namespace orrery::text::jinja
