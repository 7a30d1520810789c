// Which keys of a config make an experiment what it is, and which may change when a run
// goes on in its folder. One table; docs/resume.md is its text for users, and a test
// compares both with proto/config.proto.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::experiments {

enum class ResumeRule {
  kFixed,    ///< another value is another experiment: an error
  kContent,  ///< paths of files: what these hold is compared instead
  kMeasure,  ///< how held-out scores are taken: may change, is told, and scores from before no longer count
  kTold,  ///< may change from here on, and is told
  kFree   ///< changes nothing that is learned: may change without a word
};

struct ResumeRuleOfKey {
  std::string_view
      key;  ///< a key, or a section ("data.") for all keys in it that have no line of their own
  ResumeRule rule;
};

/// The table.
std::span<const ResumeRuleOfKey> resume_rules();

/// Of a key, by the longest entry that fits; kFixed when none does.
ResumeRule resume_rule(std::string_view key);

struct ConfigChange {
  std::string key, before, after;  ///< values as YAML
  ResumeRule rule;
};

/// Keys with other values in the second of two resolved configs, but for those that are
/// free. A key that the first does not have (it is newer) had its default; one that the
/// second does not have is passed over.
std::vector<ConfigChange> config_changes(const std::string& before_yaml,
                                         const std::string& after_yaml);

/// "seed: 1 -> 5, rollout.n: 8 -> 16".
std::string to_text(std::span<const ConfigChange> changes);

}  // namespace orrery::experiments
