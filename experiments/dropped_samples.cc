#include "experiments/dropped_samples.h"

#include <fmt/format.h>

#include <algorithm>

namespace orrery::experiments {

DroppedSamples drop_small_groups(std::vector<rollout::Group>& groups, size_t least) {
  DroppedSamples dropped;
  for (const rollout::Group& group : groups) {
    dropped.samples += group.dropped;
    dropped.all += group.dropped + group.samples.size();
  }
  const size_t before = groups.size();
  std::erase_if(groups, [&](const rollout::Group& group) {
    return group.samples.size() < std::max<size_t>(least, 1);
  });
  dropped.groups = before - groups.size();
  return dropped;
}

std::string dropped_text(const std::string& label, const DroppedSamples& dropped,
                         std::span<const std::string> troubles) {
  std::string text =
      fmt::format("{}: {} of {} samples are dropped", label, dropped.samples, dropped.all);
  if (dropped.groups > 0)
    text += fmt::format(", and {} group(s) with too few left", dropped.groups);
  for (size_t rank = 0; rank < troubles.size(); ++rank) {
    if (troubles[rank].empty()) continue;
    text += troubles.size() > 1 ? fmt::format("; rank {}: {}", rank, troubles[rank])
                                : "; " + troubles[rank];
  }
  return text;
}

}  // namespace orrery::experiments
