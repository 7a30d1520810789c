#include "config/config_keys.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/ascii.h"

namespace orrery::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

void collect(const Descriptor& schema, const std::string& prefix, std::vector<std::string>& keys) {
  for (int i = 0; i < schema.field_count(); ++i) {
    const FieldDescriptor& field = *schema.field(i);
    const std::string key = join_key(prefix, field.name());  // a copy: keys grows below
    keys.push_back(key);
    if (field.message_type() != nullptr && !field.is_map())
      collect(*field.message_type(), key, keys);
  }
}

/// How far a word is from a name; a large number when nobody would confuse them.
size_t distance(std::string_view word, std::string_view name) {
  constexpr size_t kFar = 1000, kShort = 4, kPartOf = 3;
  if (word == name) return 0;
  const size_t edits = edit_distance(word, name);
  const size_t allowed = word.size() <= 2 ? 0 : std::max<size_t>(1, word.size() / 3);
  if (edits <= allowed) return edits;
  // A part of the name may do, as mini_batch_size for ppo_mini_batch_size.
  const bool part =
      name.find(word) != std::string_view::npos || word.find(name) != std::string_view::npos;
  return part && std::min(word.size(), name.size()) >= kShort ? kPartOf : kFar;
}

}  // namespace

std::string join_key(std::string_view section, std::string_view key) {
  return section.empty() ? std::string(key) : std::string(section) + "." + std::string(key);
}

std::vector<std::string> all_keys(const Descriptor& schema) {
  std::vector<std::string> keys;
  collect(schema, "", keys);
  return keys;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  std::iota(above.begin(), above.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] =
          std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

std::string suggest_key(const Descriptor& schema, std::string_view section, std::string_view key) {
  // A file may have a key of any length. No name is close to a very long one.
  if (key.size() > 100) return "";
  std::string best;
  size_t best_score = std::numeric_limits<size_t>::max();
  for (const std::string& candidate : all_keys(schema)) {
    const size_t dot = candidate.rfind('.');
    const std::string_view home =
        dot == std::string::npos ? "" : std::string_view(candidate).substr(0, dot);
    const std::string_view name =
        std::string_view(candidate).substr(dot == std::string::npos ? 0 : dot + 1);
    const size_t far = distance(key, name);
    if (far >= 1000) continue;
    // Nearness first, then the same section, then its children, then elsewhere.
    const size_t place = home == section                                 ? 0
                         : home.starts_with(section) && !section.empty() ? 1
                                                                         : 2;
    const size_t score = far * 4 + place;
    if (score < best_score) {
      best_score = score;
      best = candidate;
    }
  }
  return best;
}

std::string list_keys(const Descriptor& section) {
  std::string text;
  for (int i = 0; i < section.field_count(); ++i)
    text += (i > 0 ? ", " : "") + section.field(i)->name();
  return text;
}

std::string enum_word(const google::protobuf::EnumValueDescriptor& value) {
  std::string word = value.name();
  for (char& c : word) c = c == '_' ? '-' : to_lower(c);
  return word;
}

std::string list_enum_words(const google::protobuf::EnumDescriptor& type) {
  std::string text;
  for (int i = 0; i < type.value_count(); ++i) {
    if (i > 0) text += i + 1 == type.value_count() ? " or " : ", ";
    text += enum_word(*type.value(i));
  }
  return text;
}

}  // namespace orrery::config
