// Keys and words of other programs' configs, and what they are here: one table, for
// messages about unknown keys and for docs/migration.md, which a test compares with it.
// Pure functions, thread-safe.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace orrery::config {

struct ForeignKey {
  std::string_view program;  ///< "verl", "TRL", "OpenRLHF" or "NeMo-RL"
  std::string_view
      key;  ///< as it is written there; one that ends in '.' is a section and all in it
  std::string_view ours;  ///< keys of proto/config.proto, with ", " between; empty: there is none
  std::string_view note;  ///< what to know or to do instead; may be empty where `ours` says it all
};

/// The table, by program.
std::span<const ForeignKey> foreign_keys();

/// A word that another program has for a value of one of our keys.
struct ForeignValue {
  std::string_view key;   ///< ours
  std::string_view word;  ///< theirs, with - for _
  std::string_view note;  ///< what to write here, or why there is none
};
std::span<const ForeignValue> foreign_values();

/// What to say of an unknown key, the whole dotted name as it was written: "verl's
/// actor.clip_ratio is actor.clip_ratio_low and actor.clip_ratio_high here; ...".
/// Empty: none of the table's. `exact`: the name itself, two words or more of its end
/// (verl's actor_rollout_ref. may be left out) or a section it is in; otherwise its
/// last word alone.
std::string foreign_key_advice(std::string_view name, bool exact);

/// Of a value, by the key's dotted name; empty: nothing is known.
std::string foreign_value_advice(std::string_view key, std::string_view word);

}  // namespace orrery::config
