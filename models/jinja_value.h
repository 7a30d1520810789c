// Values of chat templates, with Python's meaning of truth, equality, + and text, as far as templates use
// them. Internal to chat_template.h.
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

/// A dict; also a namespace and the `loop` of a for, which is why it is shared and changed in place.
struct Dict {
  Members members;
  Value* find(const std::string& key);
  void set(const std::string& key, Value value);
};

struct Undefined {};
struct None {};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, std::string, std::shared_ptr<const List>,
                            std::shared_ptr<Dict>>;

  Value() = default;
  template <class T>
  Value(T data)
      : data_(std::move(data)) {}  // NOLINT(google-explicit-constructor): a value is any of its kinds
  Value(const char*) = delete;
  static Value list(List items) { return std::make_shared<const List>(std::move(items)); }
  static Value dict(Members members) { return std::make_shared<Dict>(Dict{std::move(members)}); }

  template <class T>
  const T* as() const {
    return std::get_if<T>(&data_);
  }
  const std::string* string() const { return as<std::string>(); }
  const int64_t* integer() const { return as<int64_t>(); }
  const List* list() const;
  Dict* dict() const;

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

}  // namespace orrery::jinja
