// What one rendering of a chat template may cost, and the arguments of its calls.
// Internal to chat_template.h.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "core/span.h"
#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// Counts the work of a run in steps of some 100 ns: one for a node of the tree, and
/// more where a node handles much data. Every member throws Error when a run takes more
/// steps than any honest template.
class Machine {
 public:
  void step(int64_t count = 1);
  /// Before an operation goes through the characters, items or members of a value, or
  /// after one made it.
  void charge(const Value& value);
  void charge(const Arguments& arguments);
  /// Before a comparison or a print, which goes through all that is inside.
  void charge_all(const Value& value);
  /// Before one text is looked for in another.
  void charge_search(const Value& text, const Value& wanted);
  /// What an operation made; a list's items take memory for as long as the list is
  /// kept.
  Value charged(Value value);
  /// Bytes that an operation made.
  void charge_bytes(size_t bytes);

  /// Counts how deep calls are nested while it lives; a hostile template must not
  /// exhaust the stack.
  class Nesting {
   public:
    Nesting(Machine& machine, int weight);
    ~Nesting() { machine_.nesting_ -= weight_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Machine& machine_;
    int weight_;
  };

 private:
  int64_t steps_ = 0;
  int nesting_ = 0;
};

/// Arguments sorted by a signature: `names` in order, those that stand alone with an
/// empty name. Throws Error for too many, too few, unknown and doubled ones.
class Bound {
 public:
  Bound(std::string_view what, const Arguments& arguments,
        std::initializer_list<std::string_view> names, int64_t required = 0);

  bool has(int64_t index) const { return values_[index].has_value(); }
  /// Undefined where absent.
  const Value& operator[](int64_t index) const;
  /// Given, and not None.
  bool given(int64_t index) const { return has(index) && !values_[index]->is_none(); }
  bool truth(int64_t index, bool fallback) const {
    return has(index) ? values_[index]->truth() : fallback;
  }
  /// These throw Error for another kind.
  int64_t integer(int64_t index, int64_t fallback) const;
  std::string text(int64_t index, std::string fallback) const;

 private:
  std::string what_;
  Array<std::optional<Value>> values_;
  Value nothing_;
};

}  // namespace orrery::text::jinja
