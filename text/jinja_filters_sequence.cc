// Filters of lists, dicts and iterators (jinja_filters.h).
#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <unordered_set>

#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_filters.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace orrery::text::jinja {
namespace {

constexpr std::array<std::string_view, 20> kSequenceFilters = {
    "batch",  "dictsort",   "first", "groupby", "items",  "join",       "last",
    "list",   "map",        "max",   "min",     "reject", "rejectattr", "reverse",
    "select", "selectattr", "slice", "sort",    "sum",    "unique"};

using Getter = std::function<Value(Machine&, const Value&)>;
using Next = std::function<bool(Value&)>;

Value ignoring_case(const Value& value) {
  return value.string() == nullptr ? value : Value(text_lower(*value.string()));
}

Getter key_getter(const Value& attribute, bool case_sensitive, const Value& fallback = None{}) {
  return [get = attribute_getter(attribute, fallback), case_sensitive](Machine& machine,
                                                                       const Value& value) {
    const Value key = get(machine, value);
    return case_sensitive ? key : ignoring_case(key);
  };
}

Value attribute_argument(const Bound& bound, int64_t index) {
  return bound.has(index) ? bound[index] : Value(None{});
}

/// Sorts items by their keys. Items with equal keys keep their order, with `reverse` as
/// well, as in Python's sorted().
List sorted(Machine& machine, const List& items, const Getter& key, bool reverse) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items) {
    keyed.emplace_back(key(machine, item), item);
    machine.charge_all(keyed.back().first);
  }
  machine.step(items.size() * 2);
  const auto before = [&](const auto& a, const auto& b) {
    machine.charge_all(a.first);
    return reverse ? less(b.first, a.first) : less(a.first, b.first);
  };
  std::stable_sort(keyed.begin(), keyed.end(), before);
  List out;
  for (auto& [unused, item] : keyed) out.push_back(std::move(item));
  return out;
}

Value sort_filter(Machine& machine, const Value& value, const Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Getter> getters;
  const bool case_sensitive = bound.truth(1, false);
  if (bound.has(2) && bound[2].string() != nullptr) {
    for (const std::string& part : text_split(*bound[2].string(), ",", -1, false))
      getters.push_back(key_getter(Value(part), case_sensitive));
  } else {
    getters.push_back(key_getter(attribute_argument(bound, 2), case_sensitive));
  }
  const auto key = [getters](Machine& m, const Value& item) {
    List keys;
    for (const Getter& getter : getters) keys.push_back(getter(m, item));
    return Value::list(std::move(keys));
  };
  return Value::list(sorted(machine, items_of(machine, value), key, bound.truth(0, false)));
}

Value dictsort(Machine& machine, const Value& value, const Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.text(1, "key");
  if (by != "key" && by != "value") fail("dictsort: by must be key or value");
  if (value.dict() == nullptr) fail("dictsort of {}", value.kind());
  List pairs;
  for (const auto& [key, member] : value.dict()->members)
    pairs.push_back(Value::tuple({key, member}));
  const Getter key = key_getter(Value(int64_t{by == "key" ? 0 : 1}), bound.truth(0, false));
  return Value::list(sorted(machine, pairs, key, bound.truth(2, false)));
}

Value groupby(Machine& machine, const Value& value, const Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const bool case_sensitive = bound.truth(2, false);
  const Value fallback = attribute_argument(bound, 1);
  const Getter key = key_getter(bound[0], case_sensitive, fallback),
               plain = attribute_getter(bound[0], fallback);
  const List items = sorted(machine, items_of(machine, value), key, false);
  List groups;
  for (size_t begin = 0; begin < items.size();) {
    const Value first = key(machine, items[begin]);
    List group;
    size_t end = begin;
    while (end < items.size() && key(machine, items[end]) == first) group.push_back(items[end++]);
    groups.push_back(Value::sequence(SequenceKind::kGroup,
                                     {plain(machine, group[0]), Value::list(std::move(group))}));
    if (end == begin) fail("groupby a key that is not equal to itself");
    begin = end;
  }
  return Value::list(std::move(groups));
}

Value extreme(Machine& machine, const Value& value, const std::string& name,
              const Arguments& arguments) {
  const Bound bound(name, arguments, {"case_sensitive", "attribute"});
  const Getter key = key_getter(attribute_argument(bound, 1), bound.truth(0, false));
  const auto next = iterate(machine, value);
  Value best, best_key;
  bool any = false;
  for (Value item; next(item);) {
    const Value candidate = key(machine, item);
    machine.charge_all(candidate);
    if (any && !(name == "min" ? less(candidate, best_key) : less(best_key, candidate))) continue;
    any = true;
    best = item;
    best_key = candidate;
  }
  return any ? best : Value::undefined("no item: the sequence is empty");
}

Value sum(Machine& machine, const Value& value, const Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const Getter get = attribute_getter(attribute_argument(bound, 0), None{});
  Value total = bound.has(1) ? bound[1] : Value(int64_t{0});
  if (total.string() != nullptr) fail("sum of strings");
  const auto next = iterate(machine, value);
  for (Value item; next(item);) total = arithmetic(machine, "+", total, get(machine, item));
  return total;
}

Value join(Machine& machine, const Value& value, const Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const std::string separator = bound.has(0) ? print(bound[0]) : "";
  const Getter get = attribute_getter(attribute_argument(bound, 1), None{});
  std::string out;
  const auto next = iterate(machine, value);
  bool first = true;
  for (Value item; next(item); first = false) {
    const Value part = get(machine, item);
    machine.charge_all(part);
    machine.charge_bytes(separator.size());
    if (!first) out += separator;
    out += print(part);
    check_text_size(out.size());
  }
  return out;
}

/// A generator over the items of `value`. It is empty when the value is false.
Value generator(const Value& value, const Arguments& arguments,
                std::function<std::function<bool(Value&)>(Machine&, Next)> begin,
                Machine& machine) {
  std::vector<Value> held = {value};
  for (const Value& argument : arguments.positional) held.push_back(argument);
  for (const auto& [name, argument] : arguments.keywords) held.push_back(argument);
  const auto state = std::make_shared<Next>();
  return Value::iterator(
      [&machine, value, begin = std::move(begin), state](Value& out) {
        if (!*state) {
          if (!value.truth()) return false;
          *state = begin(machine, iterate(machine, value));
        }
        return (*state)(out);
      },
      held);
}

Value map_filter(Machine& machine, const Value& value, const Arguments& arguments) {
  return generator(
      value, arguments,
      [arguments](Machine& m, Next source) -> Next {
        const bool by_attribute =
            arguments.positional.empty() &&
            std::any_of(arguments.keywords.begin(), arguments.keywords.end(),
                        [](const auto& keyword) { return keyword.first == "attribute"; });
        if (by_attribute) {
          const Bound bound("map", arguments, {"attribute", "default"});
          return [&m, source,
                  get = attribute_getter(bound[0], attribute_argument(bound, 1))](Value& out) {
            Value item;
            return source(item) && (out = get(m, item), true);
          };
        }
        if (arguments.positional.empty() || arguments.positional[0].string() == nullptr)
          fail("map wants the name of a filter, or attribute=");
        Arguments rest = arguments;
        rest.positional.erase(rest.positional.begin());
        return [&m, source, name = *arguments.positional[0].string(), rest](Value& out) {
          Value item;
          return source(item) && (out = apply_filter(m, name, item, rest), true);
        };
      },
      machine);
}

Value select_filter(Machine& machine, const Value& value, const std::string& name,
                    const Arguments& arguments) {
  const bool by_attribute = name.ends_with("attr"), wanted = name.starts_with("select");
  return generator(
      value, arguments,
      [arguments, by_attribute, wanted, name](Machine& m, Next source) -> Next {
        Arguments rest = arguments;
        Getter get = [](Machine&, const Value& item) { return item; };
        const auto shift = [&] {
          if (rest.positional.empty()) return Value();
          Value first = rest.positional[0];
          rest.positional.erase(rest.positional.begin());
          return first;
        };
        if (by_attribute) {
          if (rest.positional.empty()) fail("{} wants the name of an attribute", name);
          get = attribute_getter(shift(), None{});
        }
        const bool has_test = !rest.positional.empty();
        const Value test = shift();
        if (has_test && test.string() == nullptr)
          fail("{} wants the name of a test, not {}", name, test.kind());
        return [&m, source, get, rest, has_test, wanted, test](Value& out) {
          for (Value item; source(item);) {
            m.step();
            const Value looked_at = get(m, item);
            const bool holds =
                has_test ? apply_test(m, *test.string(), looked_at, rest) : looked_at.truth();
            if (holds == wanted) return out = item, true;
          }
          return false;
        };
      },
      machine);
}

Value unique(Machine& machine, const Value& value, const Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  const Getter key = key_getter(attribute_argument(bound, 1), bound.truth(0, false));
  const auto seen = std::make_shared<std::unordered_set<std::string>>();
  const auto source = std::make_shared<Next>();
  return Value::iterator(
      [&machine, value, key, seen, source](Value& out) {
        if (!*source) *source = iterate(machine, value);
        for (Value item; (*source)(item);) {
          const Value wanted = key(machine, item);
          machine.charge_all(wanted);
          machine.step();
          if (seen->insert(hash_key(wanted)).second) return out = item, true;
        }
        return false;
      },
      {value});
}

/// A generator that makes all its items when the first one is asked for.
Value lazily(const Value& value, const Arguments& arguments, std::function<List()> make) {
  std::vector<Value> held = {value};
  for (const Value& argument : arguments.positional) held.push_back(argument);
  for (const auto& [name, argument] : arguments.keywords) held.push_back(argument);
  struct State {
    std::optional<List> items;
    size_t at = 0;
  };
  return Value::iterator(
      [make = std::move(make), state = std::make_shared<State>()](Value& out) {
        if (!state->items) state->items = make();
        return state->at < state->items->size() && (out = (*state->items)[state->at++], true);
      },
      held);
}

Value iterator_over(List items) {
  const Value list = Value::list(std::move(items));
  return lazily(list, {}, [list] { return *list.items(); });
}

List batches_of(Machine& machine, const Value& value, const Bound& bound) {
  const int64_t count = bound.integer(0, 1);
  List batches, current;
  if (count < 1) fail_unsupported("batch of {} items is not supported", count);
  check_list_size(count);
  for (const Value& item : items_of(machine, value)) {
    if (std::ssize(current) == count) batches.push_back(Value::list(std::exchange(current, {})));
    current.push_back(item);
  }
  if (!current.empty()) {
    if (bound.given(1)) {
      machine.step(count / 4);
      current.insert(current.end(), count - std::ssize(current), bound[1]);
    }
    batches.push_back(Value::list(std::move(current)));
  }
  return batches;
}

List slices_of(Machine& machine, const Value& value, const Bound& bound) {
  const int64_t count = bound.integer(0, 1);
  const List items = items_of(machine, value);
  if (count < 1) fail_unsupported("slice into {} parts is not supported", count);
  check_list_size(count);
  machine.step(count);
  const int64_t each = std::ssize(items) / count, extra = std::ssize(items) % count;
  List out;
  auto at = items.begin();
  for (int64_t i = 0; i < count; ++i) {
    const auto end = at + each + (i < extra ? 1 : 0);
    List part(at, end);
    if (bound.given(1) && i >= extra) part.push_back(bound[1]);
    out.push_back(Value::list(std::move(part)));
    at = end;
  }
  return out;
}

Value reversed(Machine& machine, const Value& value) {
  if (const auto* text = value.string()) {
    std::vector<std::string_view> characters = text_characters(*text);
    std::string out;
    for (auto character = characters.rbegin(); character != characters.rend(); ++character)
      out += *character;
    return out;
  }
  List items = items_of(machine, value);
  std::reverse(items.begin(), items.end());
  if (value.iterator() != nullptr) return Value::list(std::move(items));
  return iterator_over(std::move(items));
}

Value first_or_last(Machine& machine, const Value& value, bool first) {
  Value out;
  if (first) {
    if (iterate(machine, value)(out)) return out;
  } else {
    if (value.iterator() != nullptr) fail("last of an iterator");
    const List items = items_of(machine, value);
    if (!items.empty()) return items.back();
  }
  return Value::undefined("no item: the sequence is empty");
}

List item_pairs(const Value& value) {
  if (value.is_undefined()) return {};
  if (value.dict() == nullptr) fail("items of {}", value.kind());
  List pairs;
  for (const auto& [key, member] : value.dict()->members)
    pairs.push_back(Value::tuple({key, member}));
  return pairs;
}

Value sequence_filter(Machine& machine, const std::string& name, const Value& value,
                      const Arguments& arguments) {
  if (name == "join") return join(machine, value, arguments);
  if (name == "map") return map_filter(machine, value, arguments);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr")
    return select_filter(machine, value, name, arguments);
  if (name == "sort") return sort_filter(machine, value, arguments);
  if (name == "dictsort") return dictsort(machine, value, arguments);
  if (name == "groupby") return groupby(machine, value, arguments);
  if (name == "min" || name == "max") return extreme(machine, value, name, arguments);
  if (name == "sum") return sum(machine, value, arguments);
  if (name == "unique") return unique(machine, value, arguments);
  if (name == "batch") {
    return lazily(value, arguments,
                  [&machine, value, bound = Bound(name, arguments, {"linecount", "fill_with"}, 1)] {
                    return batches_of(machine, value, bound);
                  });
  }
  if (name == "slice") {
    return lazily(value, arguments,
                  [&machine, value, bound = Bound(name, arguments, {"slices", "fill_with"}, 1)] {
                    return slices_of(machine, value, bound);
                  });
  }
  const Bound none(name, arguments, {});
  if (name == "list") return Value::list(items_of(machine, value));
  if (name == "first" || name == "last") return first_or_last(machine, value, name == "first");
  if (name == "reverse") return reversed(machine, value);
  return lazily(value, {}, [value] { return item_pairs(value); });
}

}  // namespace

bool is_sequence_filter(std::string_view name) {
  return !name.empty() && std::find(kSequenceFilters.begin(), kSequenceFilters.end(), name) !=
                              kSequenceFilters.end();
}

bool apply_sequence_filter(Machine& machine, const std::string& name, const Value& value,
                           const Arguments& arguments, Value& out) {
  if (!is_sequence_filter(name)) return false;
  out = sequence_filter(machine, name, value, arguments);
  return true;
}

}  // namespace orrery::text::jinja
