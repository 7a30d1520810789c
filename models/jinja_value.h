// Values of chat templates, with Python's meaning of truth, equality, + and text, as far as templates use
// them. Copies are cheap: texts, lists and dicts are shared. Only a namespace can be changed, and nothing may
// hold one, so values never form a cycle. Internal to chat_template.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace orrery::jinja {

class Value;
using List = std::vector<Value>;
using Members = std::vector<std::pair<std::string, Value>>;

/// How much a value holds: what bounds the stack and the time that walking it takes.
struct Extent {
  int depth = 0;      ///< of lists and dicts in it
  size_t weight = 0;  ///< bytes of its texts and some for every value, each as often as it occurs; saturating
};

/// A dict, the `loop` of a for, or a namespace.
struct Dict {
  Members members;
  Extent extent;
  bool is_namespace = false;
  const Value* find(const std::string& key) const;
};

struct SharedList;

struct Undefined {};
struct None {};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, std::shared_ptr<const std::string>,
                            std::shared_ptr<const SharedList>, std::shared_ptr<Dict>>;

  Value() = default;
  template <class T>
  Value(T data)
      : data_(std::move(data)) {}  // NOLINT(google-explicit-constructor): a value is any of its kinds
  Value(std::string text)
      : data_(std::make_shared<const std::string>(std::move(text))) {
  }  // NOLINT(google-explicit-constructor): as above
  Value(const char*) = delete;
  /// These throw Error for lists and dicts nested too deep, and for a namespace inside.
  static Value list(List items);
  static Value dict(Members members);
  static Value make_namespace(Members members);

  template <class T>
  const T* as() const {
    return std::get_if<T>(&data_);
  }
  const std::string* string() const;
  const int64_t* integer() const { return as<int64_t>(); }
  const List* list() const;
  const Dict* dict() const;
  /// Sets a member of a namespace; false when this is none. Throws Error where list() does.
  bool set_member(const std::string& key, Value value) const;
  Extent extent() const;

  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<None>() != nullptr; }
  bool truth() const;
  /// Python's name of the kind, for messages.
  const char* kind() const;
  /// What {{ }} prints. Throws std::invalid_argument for kinds whose print form templates never want.
  std::string print() const;
  bool operator==(const Value& other) const;

 private:
  Data data_;
};

struct SharedList {
  List items;
  Extent extent;
};

}  // namespace orrery::jinja
