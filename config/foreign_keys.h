// Keys and words of other programs' configs, and what they are here. Messages about
// unknown keys come from this table, and a test compares docs/migration.md with it.
// Pure functions, thread-safe.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::config {

struct ForeignKey {
  std::string_view program;  ///< "verl", "TRL", "OpenRLHF" or "NeMo-RL"
  /// The key as it is written there; with '.' at its end, a section and all keys in it.
  std::string_view key;
  /// Keys of proto/config.proto with ", " between them; empty when there is none.
  std::string_view ours;
  /// What to know, or what to do instead; empty where `ours` says it all.
  std::string_view note;
};

/// Returns the table, program by program.
std::vector<ForeignKey> foreign_keys();

/// A word that another program has for a value of one of our keys, and what we say of
/// it.
struct ForeignValue {
  std::string_view key;   ///< ours
  std::string_view word;  ///< theirs, with - for _
  std::string_view note;  ///< what to write here, or why there is none
};
std::span<const ForeignValue> foreign_values();

/// Returns what to say about an unknown key: "verl's actor.clip_ratio is
/// actor.clip_ratio_low and actor.clip_ratio_high here: ...". Empty when the table does
/// not have it. `name` is the whole dotted name as it was written. With `exact` it must
/// be a key's name, two words or more of its end (verl's actor_rollout_ref. may be left
/// out), or be in a section of the table; without, only its last word is compared.
std::string foreign_key_advice(std::string_view name, bool exact);

/// Returns what to say about a word for the value of one of our keys, given by its
/// dotted name. Empty when the table does not have it.
std::string foreign_value_advice(std::string_view key, std::string_view word);

}  // namespace orrery::config
