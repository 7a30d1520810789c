#include "core/fault.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "core/error.h"

namespace orrery {
namespace {

constexpr auto kSlowness = std::chrono::milliseconds(100);

struct ActionName {
  FaultAction action;
  std::string_view name;
};
constexpr std::array kActionNames = {
    ActionName{FaultAction::kCrash, "crash"},    ActionName{FaultAction::kHang, "hang"},
    ActionName{FaultAction::kSlow, "slow"},      ActionName{FaultAction::kError, "error"},
    ActionName{FaultAction::kTorn, "torn"},      ActionName{FaultAction::kShortRead, "short-read"},
    ActionName{FaultAction::kNoSpace, "enospc"}, ActionName{FaultAction::kCorrupt, "corrupt"},
};

constexpr bool table_is_in_order() {
  uint8_t place = 0;
  for (const FaultPointInfo& info : kFaultPoints) {
    if (info.point != FaultPoint{place++}) return false;
  }
  return kFaultPoints.back().point == FaultPoint::kOptimizerStep;
}
static_assert(table_is_in_order());

struct Rule {
  const FaultPointInfo* info = nullptr;
  ActionName action{};
  int64_t hit = 1;
  bool from_then_on = false;
  std::optional<int64_t> rank;
  std::atomic<int64_t> visits = 0;
};

/// The rules that the process's environment gave; written before other threads start.
struct Armed {
  std::vector<std::unique_ptr<Rule>> rules;
  std::atomic<int> rank = 0;
};
Armed& armed() {
  static Armed state;
  return state;
}

std::string action_list(uint32_t actions) {
  std::string list;
  for (const ActionName& action : kActionNames) {
    if ((actions & fault_bit(action.action)) == 0) continue;
    list += fmt::format("{}{}", list.empty() ? "" : ", ", action.name);
  }
  return list;
}

std::string point_list() {
  std::string list;
  for (const FaultPointInfo& info : kFaultPoints)
    list += fmt::format("{}{}", list.empty() ? "" : ", ", info.name);
  return list;
}

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(' '), last = text.find_last_not_of(' ');
  return first == std::string_view::npos ? std::string_view()
                                         : text.substr(first, last - first + 1);
}

int64_t number(std::string_view text, std::string_view rule, int64_t least) {
  int64_t value = -1;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || value < least) {
    fail_usage("ORRERY_FAULT: \"{}\" in \"{}\" is not a whole number of at least {}", text, rule,
               least);
  }
  return value;
}

std::unique_ptr<Rule> parse_rule(std::string_view text) {
  auto rule = std::make_unique<Rule>();
  std::string_view rest = text;
  if (const size_t comma = rest.find(','); comma != std::string_view::npos) {
    const std::string_view option = trim(rest.substr(comma + 1));
    if (!option.starts_with("rank="))
      fail_usage("ORRERY_FAULT: \"{}\" in \"{}\" is not rank=R", option, text);
    rule->rank = number(option.substr(5), text, 0);
    rest = trim(rest.substr(0, comma));
  }
  std::optional<std::string_view> hit;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    hit = trim(rest.substr(at + 1));
    rest = trim(rest.substr(0, at));
  }
  const size_t colon = rest.find(':');
  if (colon == std::string_view::npos)
    fail_usage("ORRERY_FAULT: \"{}\" is not point:action[@N][,rank=R]; see orrery config --faults",
               text);
  const std::string_view point = trim(rest.substr(0, colon)), action = trim(rest.substr(colon + 1));
  const auto info = std::ranges::find(kFaultPoints, point, &FaultPointInfo::name);
  if (info == kFaultPoints.end())
    fail_usage("ORRERY_FAULT: there is no point \"{}\"; the points are {}", point, point_list());
  rule->info = &*info;
  const auto known = std::ranges::find(kActionNames, action, &ActionName::name);
  if (known == kActionNames.end() || (info->actions & fault_bit(known->action)) == 0) {
    fail_usage("ORRERY_FAULT: \"{}\" is no action of {}; its actions are {}", action, point,
               action_list(info->actions));
  }
  rule->action = *known;
  rule->from_then_on = rule->action.action == FaultAction::kSlow && !hit;
  if (hit) {
    rule->from_then_on = hit->ends_with('+');
    if (rule->from_then_on) hit->remove_suffix(1);
    rule->hit = number(*hit, text, 1);
  }
  return rule;
}

/// Carries out the actions that can be done anywhere; the caller does the others.
FaultAction carry_out(const Rule& rule, int64_t visit) {
  const std::string what =
      fmt::format("{} injected at {} (visit {})", rule.action.name, rule.info->name, visit);
  if (rule.action.action == FaultAction::kError) fail("{}, as ORRERY_FAULT asks", what);
  if (rule.action.action != FaultAction::kSlow || visit == rule.hit) {
    std::fprintf(stderr, "orrery: %s\n", what.c_str());
    std::fflush(stderr);
  }
  switch (rule.action.action) {
    case FaultAction::kCrash:
      fault_crash();
    case FaultAction::kHang:
      while (true) ::pause();
    case FaultAction::kSlow:
      std::this_thread::sleep_for(kSlowness);
      return FaultAction::kNone;
    default:
      return rule.action.action;
  }
}

}  // namespace

void arm_faults(std::string_view text) {
  Armed& state = armed();
  faults_armed = false;
  state.rules.clear();
  std::vector<std::unique_ptr<Rule>> rules;
  while (!text.empty()) {
    const size_t end = std::min(text.find(';'), text.size());
    const std::string_view rule = trim(text.substr(0, end));
    if (!rule.empty()) rules.push_back(parse_rule(rule));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  state.rules = std::move(rules);
  faults_armed = !state.rules.empty();
}

void set_fault_rank(int rank) { armed().rank = rank; }

FaultAction fault_reached(FaultPoint point) {
  Armed& state = armed();
  FaultAction result = FaultAction::kNone;
  for (const auto& rule : state.rules) {
    if (rule->info->point != point || (rule->rank && *rule->rank != state.rank)) continue;
    const int64_t visit = ++rule->visits;
    if (visit != rule->hit && !(rule->from_then_on && visit > rule->hit)) continue;
    const FaultAction action = carry_out(*rule, visit);
    if (action != FaultAction::kNone) result = action;
  }
  return result;
}

void fault_crash() {
  ::kill(::getpid(), SIGKILL);
  while (true) ::pause();
}

std::string describe_faults() {
  std::string text =
      "ORRERY_FAULT=point:action[@N|@N+][,rank=R][;...]\n"
      "  @N: at the Nth visit of a process (default 1); @N+: from then on; slow: "
      "100 ms at every visit\n"
      "  crash: SIGKILL; torn: half of the bytes, then crash; short-read: "
      "half of the bytes are there;\n"
      "  enospc: the disk is full; corrupt: one bit is wrong\n"
      "\n";
  for (const FaultPointInfo& info : kFaultPoints) {
    text += fmt::format("{:<20}{}\n{:<20}  {}\n", info.name, info.meaning, "",
                        action_list(info.actions));
  }
  return text;
}

}  // namespace orrery
