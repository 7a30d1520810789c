#include "config/foreign_keys.h"

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "config/config_keys.h"
#include "config/foreign_tables.h"
#include "proto/config.pb.h"

namespace orrery::config {
namespace {

constexpr std::string_view kPrefix = "actor_rollout_ref.";

std::string_view leaf(std::string_view key) {
  const size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

bool is_section(const ForeignKey& entry) { return entry.key.ends_with('.'); }

/// Whether `name` is the end of `key`, from a dot on.
bool is_end_of(std::string_view name, std::string_view key) {
  return key.size() > name.size() && key.ends_with(name) &&
         key[key.size() - name.size() - 1] == '.';
}

/// Whether a word says nothing without the section that it stands in.
bool is_vague(std::string_view word) {
  constexpr std::string_view kVague[] = {"name", "mode", "path", "model", "dtype", "optimizer"};
  return word.size() < 3 ||
         std::find(std::begin(kVague), std::end(kVague), word) != std::end(kVague);
}

/// Lower is nearer.
enum class Match { kWhole, kEnd, kSection, kLeaf, kNone };

/// `section` comes without its dot. Outer sections may be left out: kl_ctrl.horizon.
Match match_section(std::string_view name, std::string_view section) {
  if (name == section) return Match::kWhole;
  for (std::string_view end = section;;) {
    if (name == end || (name.starts_with(end) && name[end.size()] == '.')) return Match::kSection;
    const size_t dot = end.find('.');
    if (dot == std::string_view::npos) return Match::kNone;
    end = end.substr(dot + 1);
  }
}

Match match(std::string_view name, const ForeignKey& entry) {
  if (is_section(entry)) return match_section(name, entry.key.substr(0, entry.key.size() - 1));
  if (name == entry.key) return Match::kWhole;
  const bool dotted = name.find('.') != std::string_view::npos;
  if (dotted && is_end_of(name, entry.key)) return Match::kEnd;
  return leaf(name) == leaf(entry.key) && !is_vague(leaf(name)) ? Match::kLeaf : Match::kNone;
}

/// "a", "a and b".
std::string both(std::string_view keys) {
  const size_t comma = keys.find(", ");
  if (comma == std::string_view::npos) return std::string(keys);
  return fmt::format("{} and {}", keys.substr(0, comma), keys.substr(comma + 2));
}

std::string text_of(const ForeignKey& entry) {
  std::string name(entry.key);
  if (is_section(entry)) name.pop_back();
  std::string text = entry.ours.empty()
                         ? fmt::format("{}'s {} has no counterpart here", entry.program, name)
                         : fmt::format("{}'s {} is {} here", entry.program, name, both(entry.ours));
  if (!entry.note.empty()) text += fmt::format(": {}", entry.note);
  return text;
}

}  // namespace

std::vector<ForeignKey> foreign_keys() {
  std::vector<ForeignKey> all;
  for (const std::span<const ForeignKey> keys :
       {verl_keys(), trl_keys(), openrlhf_keys(), nemo_rl_keys()}) {
    all.insert(all.end(), keys.begin(), keys.end());
  }
  return all;
}

std::string foreign_key_advice(std::string_view written, bool exact) {
  if (written.size() > 200) return "";
  std::string name(written);
  std::replace(name.begin(), name.end(), '-', '_');  // as command lines write them
  if (exact && name.starts_with(kPrefix)) {
    const std::string rest = name.substr(kPrefix.size());
    const std::vector<std::string> own = all_keys(*proto::Config::descriptor());
    if (std::find(own.begin(), own.end(), rest) != own.end())
      return fmt::format("verl's {} is {} here", name, rest);
  }
  const std::vector<ForeignKey> known = foreign_keys();
  const ForeignKey* best = nullptr;
  Match nearest = Match::kNone;
  for (const ForeignKey& entry : known) {
    const Match found = match(name, entry);
    const bool longer = found == Match::kSection && nearest == Match::kSection && best != nullptr &&
                        entry.key.size() > best->key.size();
    if (found < nearest || longer) {
      nearest = found;
      best = &entry;
    }
  }
  if (best == nullptr || (exact && nearest > Match::kSection) ||
      (!exact && nearest <= Match::kSection))
    return "";
  return text_of(*best);
}

std::string foreign_value_advice(std::string_view key, std::string_view word) {
  for (const ForeignValue& entry : foreign_values()) {
    if (entry.key == key && entry.word == word) return std::string(entry.note);
  }
  return "";
}

}  // namespace orrery::config
