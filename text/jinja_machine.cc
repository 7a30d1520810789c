#include "text/jinja_machine.h"

#include <algorithm>

#include "core/error.h"

namespace orrery::text::jinja {
namespace {

constexpr int64_t kMaxSteps = 2'000'000;
constexpr int kMaxNesting = 1'000;
constexpr size_t kBytesPerStep = 256;
constexpr size_t kNamesPerStep = 16;
constexpr size_t kItemsPerStep = 4;
constexpr size_t kComparedPerStep = 8192;  // comparisons of characters in a search

}  // namespace

void Machine::step(int64_t count) {
  steps_ += std::min(count, kMaxSteps + 1);
  if (steps_ > kMaxSteps) fail("the template does not come to an end in {} steps", kMaxSteps);
}

void Machine::charge(const Value& value) {
  if (value.string() != nullptr) step(value.string()->size() / kBytesPerStep);
  if (value.items() != nullptr) step(value.items()->size() / kNamesPerStep);
  if (value.dict() != nullptr) step(value.dict()->members.size() / kNamesPerStep);
}

void Machine::charge(const Arguments& arguments) {
  for (const Value& value : arguments.positional) charge(value);
  for (const auto& [name, value] : arguments.keywords) charge(value);
}

void Machine::charge_all(const Value& value) { step(value.extent().weight / kBytesPerStep); }

void Machine::charge_search(const Value& text, const Value& wanted) {
  if (text.string() == nullptr || wanted.string() == nullptr) return;
  step(text.string()->size() * wanted.string()->size() / kComparedPerStep);
}

void Machine::charge_bytes(size_t bytes) { step(bytes / kBytesPerStep); }

Value Machine::charged(Value value) {
  charge(value);
  if (value.items() != nullptr) step(value.items()->size() / kItemsPerStep);
  if (value.dict() != nullptr) step(value.dict()->members.size() / kItemsPerStep);
  return value;
}

Machine::Nesting::Nesting(Machine& machine, int weight) : machine_(machine), weight_(weight) {
  machine_.nesting_ += weight;
  if (machine_.nesting_ > kMaxNesting) {
    machine_.nesting_ -= weight;
    fail("the template's calls are nested too deep");
  }
}

Bound::Bound(std::string_view what, const Arguments& arguments,
             std::initializer_list<std::string_view> names, int64_t required)
    : what_(what), values_(std::ssize(names)) {
  if (arguments.positional.size() > names.size())
    fail("{} takes {} arguments, not {}", what_, names.size(), arguments.positional.size());
  std::copy(arguments.positional.begin(), arguments.positional.end(), values_.begin());
  for (const auto& [name, value] : arguments.keywords) {
    const auto* found = std::find(names.begin(), names.end(), name);
    if (name.empty() || found == names.end())
      fail("{} has no argument {}", what_, name.substr(0, 40));
    auto& slot = values_[found - names.begin()];
    if (slot) fail("{} is given {} twice", what_, name);
    slot = value;
  }
  for (int64_t i = 0; i < required; ++i) {
    if (!values_[i]) fail("{} wants {} arguments", what_, required);
  }
}

const Value& Bound::operator[](int64_t index) const {
  return values_[index] ? *values_[index] : nothing_;
}

int64_t Bound::integer(int64_t index, int64_t fallback) const {
  if (!has(index)) return fallback;
  int64_t out = 0;
  if (!values_[index]->whole(out))
    fail("{} wants a whole number, not {}", what_, values_[index]->kind());
  return out;
}

std::string Bound::text(int64_t index, std::string fallback) const {
  if (!has(index)) return fallback;
  if (values_[index]->string() == nullptr)
    fail("{} wants a string, not {}", what_, values_[index]->kind());
  return *values_[index]->string();
}

}  // namespace orrery::text::jinja
