// Says which keys of a config make an experiment what it is, and which may change when
// a run goes on in its folder. It is one table. docs/resume.md explains it to users,
// and a test compares both with proto/config.proto.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::experiments {

enum class ResumeRule {
  kFixed,    ///< another value is another experiment: an error
  kContent,  ///< paths of files: what these hold is compared instead
  /// How held-out scores are taken: may change and is reported, and earlier scores no
  /// longer count.
  kMeasure,
  kTold,  ///< may change from here on, and is reported
  kFree   ///< changes nothing that is learned: may change without a word
};

struct ResumeRuleOfKey {
  /// A key, or a section ("data.") for all keys in it that have no entry of their own.
  std::string_view key;
  ResumeRule rule;
};

/// The table.
std::span<const ResumeRuleOfKey> resume_rules();

/// Returns a key's rule, by the longest entry that fits; kFixed when none does.
ResumeRule resume_rule(std::string_view key);

struct ConfigChange {
  std::string key, before, after;  ///< values as YAML
  ResumeRule rule;
};

/// Returns the keys whose values differ between two resolved configs, except for those
/// that are free. A key that the first config does not have is newer than it, and had
/// its default there. A key that the second does not have is passed over.
std::vector<ConfigChange> config_changes(const std::string& before_yaml,
                                         const std::string& after_yaml);

/// Lists changes: "seed: 1 -> 5, rollout.n: 8 -> 16".
std::string to_text(std::span<const ConfigChange> changes);

}  // namespace orrery::experiments
