// The functions that templates find without anyone giving them (jinja_filters.h).
#include <array>
#include <charconv>
#include <ctime>
#include <memory>

#include "core/ascii.h"
#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_filters.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // the limit of Jinja's sandbox

Value range(Machine&, const Arguments& arguments) {
  const Bound bound("range", arguments, {"", "", ""}, 1);
  const bool one = !bound.has(1);
  const int64_t start = one ? 0 : bound.integer(0, 0), stop = bound.integer(one ? 0 : 1, 0),
                step = bound.integer(2, 1);
  if (step == 0) fail("a range with step 0");
  const __int128 first = start, end = stop, signed_stride = step;
  const __int128 span = step > 0 ? end - first : first - end;
  const __int128 stride = step > 0 ? signed_stride : -signed_stride;
  if (span > 0 && (span + stride - 1) / stride > kMaxRange)
    fail("a range of more than {} numbers is too long", kMaxRange);
  return Value::range(start, stop, step);
}

/// The members of a new dict or namespace, from the arguments of its constructor.
Members members_of(Machine& machine, const Arguments& arguments, const char* what) {
  if (arguments.positional.size() > 1) fail("{} takes one argument", what);
  Members members;
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.dict() != nullptr) {
      members = from.dict()->members;
    } else {
      for (const Value& pair : items_of(machine, from)) {
        const List parts = items_of(machine, pair);
        if (parts.size() != 2) fail("{} wants pairs", what);
        members.emplace_back(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.keywords) members.emplace_back(Value(name), value);
  return members;
}

Value make_namespace(Machine& machine, const Arguments& arguments) {
  std::map<std::string, Value> members;
  for (const auto& [name, value] : members_of(machine, arguments, "namespace")) {
    if (name.string() == nullptr) fail("a namespace with a name that is {}", name.kind());
    if (name.string()->starts_with('_')) fail("a namespace may not hold {}", *name.string());
    members[*name.string()] = value;
  }
  return Value::make_namespace(std::move(members));
}

Value make_joiner(Machine&, const Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  const std::string separator = bound.text(0, ", ");
  const auto used = std::make_shared<bool>(false);
  return Value::callable("joiner", [separator, used](Machine&, const Arguments& given) {
    const Bound none("joiner", given, {});
    return Value(std::exchange(*used, true) ? separator : std::string());
  });
}

Value raise_exception(Machine&, const Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  std::string message = print(bound[0]);
  message.resize(text_offset(message, 200));
  for (char& c : message) c = is_control(c) ? ' ' : c;
  fail("the template says: {}", message);
}

}  // namespace

Value global_function(const std::string& name) {
  if (name == "range") return Value::callable(name, range);
  if (name == "namespace") return Value::callable(name, make_namespace);
  if (name == "dict")
    return Value::callable(name, [](Machine& machine, const Arguments& arguments) {
      return Value::dict(members_of(machine, arguments, "dict"));
    });
  if (name == "joiner") return Value::callable(name, make_joiner);
  if (name == "raise_exception") return Value::callable(name, raise_exception);
  // In Jinja `self` holds the template's blocks; here a template has none.
  if (name == "self") return Value::make_namespace({});
  if (name == "cycler" || name == "lipsum")
    fail_unsupported("the function {} is not supported", name);
  return Value::undefined(name.substr(0, 60) + " is undefined");
}

Value date_function(const std::string& date) {
  std::tm when{};
  const char* end = strptime(date.c_str(), "%Y-%m-%d", &when);
  if (end != nullptr && (*end == ' ' || *end == 'T')) end = strptime(end + 1, "%H:%M:%S", &when);
  std::tm real = when;  // timegm turns the 30th of February into the 2nd of March
  real.tm_isdst = 0;
  if (end != nullptr) timegm(&real);
  if (end == nullptr || *end != 0 || real.tm_mday != when.tm_mday || real.tm_mon != when.tm_mon ||
      real.tm_sec != when.tm_sec)
    fail(
        "strftime_now is \"{}\": give a date that exists, such as 2025-07-26, "
        "or 2025-07-26 12:34:56",
        date.substr(0, 40));
  when.tm_isdst = 0;
  return Value::callable("strftime_now", [when](Machine&, const Arguments& arguments) {
    const std::string format = Bound("strftime_now", arguments, {"format"}, 1).text(0, "");
    constexpr size_t kMaxFormatBytes = 1000;
    if (format.size() > kMaxFormatBytes)
      fail_unsupported("strftime_now with a format of {} bytes is not supported", format.size());
    if (format.empty()) return Value(std::string());
    std::string out(kMaxFormatBytes * 20, '\0');
    out.resize(std::strftime(out.data(), out.size(), format.c_str(), &when));
    return Value(out);
  });
}

}  // namespace orrery::text::jinja
