#include "tools/bench/breakdown.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace orrery::tools {
namespace {

double seconds_of(Profile::Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

std::string rate(double value, double of_peak) {
  if (value == 0) return fmt::format("{:>9} {:>6}", "", "");
  return fmt::format("{:9.1f} {:5.0f}%", value * 1e-9, of_peak * 100);
}

std::string line(const Breakdown::Row& row, const char* indent) {
  const std::string calls = row.calls > 0 ? fmt::format("{:.0f}", row.calls) : "";
  const std::string text = fmt::format(
      "  {:<26} {:>9} {:11.5f} {:5.1f}% {} {}", indent + row.name, calls, row.seconds,
      row.share * 100, rate(row.flops, row.of_product), rate(row.bytes, row.of_bandwidth));
  return text.substr(0, text.find_last_not_of(' ') + 1) + '\n';
}

}  // namespace

Breakdown make_breakdown(const Profile& profile, int64_t steps, double product_peak,
                         double memory_bandwidth) {
  ORRERY_CHECK(steps >= 1, "a breakdown of {} steps", steps);
  const double count = steps;
  Breakdown result;
  for (const Profile::Phase& phase : profile.phases())
    result.seconds += seconds_of(phase.time) / count;

  const auto fill = [&](Breakdown::Row& row, const char* name, double seconds, double flops,
                        double bytes) {
    row.name = name;
    row.seconds = seconds / count;
    row.share = result.seconds > 0 ? row.seconds / result.seconds : 0;
    row.flops = seconds > 0 ? flops / seconds : 0;
    row.of_product = row.flops / product_peak;
    row.bytes = seconds > 0 ? bytes / seconds : 0;
    row.of_bandwidth = row.bytes / memory_bandwidth;
  };
  for (const Profile::Phase& phase : profile.phases()) {
    const double seconds = seconds_of(phase.time);
    if (seconds == 0 && phase.ops.empty()) continue;
    Breakdown::Phase out;
    double flops = 0, bytes = 0, left = seconds;
    for (const Profile::Op& op : phase.ops) {
      Breakdown::Row row;
      fill(row, op.name, seconds_of(op.time), op.flops, op.bytes);
      row.calls = op.calls / count;
      out.ops.push_back(row);
      flops += op.flops;
      bytes += op.bytes;
      left -= seconds_of(op.time);
    }
    std::ranges::stable_sort(out.ops, std::ranges::greater{}, &Breakdown::Row::seconds);
    if (!out.ops.empty()) fill(out.ops.emplace_back(), "other", std::max(left, 0.0), 0, 0);
    fill(out, phase.name, seconds, flops, bytes);
    result.phases.push_back(std::move(out));
  }
  if (!result.phases.empty() && result.phases.front().name == Profile::kNoPhase)
    std::rotate(result.phases.begin(), result.phases.begin() + 1, result.phases.end());
  return result;
}

std::string breakdown_table(const Breakdown& breakdown) {
  std::string text =
      fmt::format("  {:<26} {:>9} {:>11} {:>6} {:>9} {:>6} {:>9} {:>6}\n", "phase, op", "calls",
                  "seconds", "share", "GFLOP/s", "peak", "GB/s", "memory");
  for (const Breakdown::Phase& phase : breakdown.phases) {
    text += line(phase, "");
    for (const Breakdown::Row& op : phase.ops) text += line(op, "  ");
  }
  return text;
}

}  // namespace orrery::tools
