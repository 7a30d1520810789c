// Bounds on the work of rendering a chat template, and the arguments of its calls.
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

/// Counts the work of a run in steps of about 100 ns: one step per node of the tree,
/// and more where a node handles much data. Every member throws Error when a run takes
/// more steps than any honest template.
class Machine {
 public:
  void step(int64_t count = 1);
  /// To be called before an operation walks the characters, items or members of a
  /// value, or after an operation made the value.
  void charge(const Value& value);
  void charge(const Arguments& arguments);
  /// To be called before a comparison or a print, which walks everything in the value.
  void charge_all(const Value& value);
  /// To be called before one text is searched for another.
  void charge_search(const Value& text, const Value& wanted);
  /// Charges for a value that an operation made, and returns it. Items cost more here,
  /// because they take memory for as long as the value is kept.
  Value charged(Value value);
  /// Charges for bytes that an operation made.
  void charge_bytes(size_t bytes);

  /// Counts the nesting of calls for as long as it lives, so that a hostile template
  /// does not exhaust the stack.
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

/// Arguments in the order of a signature, which is `names`; a parameter with an empty
/// name takes no keyword. Throws Error for too many, too few, unknown and repeated
/// arguments.
class Bound {
 public:
  Bound(std::string_view what, const Arguments& arguments,
        std::initializer_list<std::string_view> names, int64_t required = 0);

  bool has(int64_t index) const { return values_[index].has_value(); }
  /// The value is undefined where the argument is absent.
  const Value& operator[](int64_t index) const;
  /// Whether the argument is present and not None.
  bool given(int64_t index) const { return has(index) && !values_[index]->is_none(); }
  bool truth(int64_t index, bool fallback) const {
    return has(index) ? values_[index]->truth() : fallback;
  }
  /// Both throw Error when the argument has another kind.
  int64_t integer(int64_t index, int64_t fallback) const;
  std::string text(int64_t index, std::string fallback) const;

 private:
  std::string what_;
  Array<std::optional<Value>> values_;
  Value nothing_;
};

}  // namespace orrery::text::jinja
