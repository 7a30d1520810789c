#include "core/json_duplicates.h"

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/ascii.h"
#include "core/error.h"

namespace orrery {
namespace {

constexpr int64_t kFew = 12;  // keys that are compared pair by pair; more are sorted
constexpr size_t kShown = 60;

class Finder {
 public:
  explicit Finder(std::string_view text) : text_(text) {}

  std::optional<std::string> find() {
    for (size_t at = 0; at < text_.size(); ++at) {
      switch (text_[at]) {
        case '{':
          open_.push_back({keys_.size(), true});
          key_comes_ = true;
          break;
        case '[':
          open_.push_back({keys_.size(), false});
          key_comes_ = false;
          break;
        case '}':
          if (auto twice = of_object()) return twice;
          [[fallthrough]];
        case ']':
          if (open_.empty()) return std::nullopt;  // no JSON
          keys_.resize(open_.back().first_key);
          open_.pop_back();
          break;
        case ',':
          key_comes_ = !open_.empty() && open_.back().is_object;
          break;
        case '"':
          at = string(at);
          break;
        default:
          break;
      }
    }
    return std::nullopt;
  }

 private:
  struct Open {
    size_t first_key;
    bool is_object;
  };

  /// Reads the string whose first quote is at `at`; returns the place of its last one.
  size_t string(size_t at) {
    const size_t begin = at + 1;
    bool escapes = false;
    size_t end = begin;
    while (end < text_.size() && text_[end] != '"') {
      escapes = escapes || text_[end] == '\\';
      end += text_[end] == '\\' ? 2 : 1;
    }
    end = std::min(end, text_.size());
    if (key_comes_) {
      key_comes_ = false;
      keys_.push_back(text_.substr(begin, end - begin));
      if (escapes) keys_.back() = unescaped(begin, end);
    }
    return end;
  }

  /// The key without its escapes: two spellings may be one key.
  std::string_view unescaped(size_t begin, size_t end) {
    const auto json =
        nlohmann::json::parse(text_.substr(begin - 1, end - begin + 2), nullptr, false);
    if (!json.is_string()) return text_.substr(begin, end - begin);
    return texts_.emplace_back(json.get<std::string>());
  }

  /// A key that the innermost open object gives twice.
  std::optional<std::string> of_object() {
    if (open_.empty()) return std::nullopt;
    const auto begin = keys_.begin() + open_.back().first_key, end = keys_.end();
    if (end - begin > kFew) {
      std::sort(begin, end);
      const auto twice = std::adjacent_find(begin, end);
      return twice == end ? std::nullopt : std::optional<std::string>(*twice);
    }
    for (auto key = begin; key != end; ++key) {
      if (std::find(begin, key, *key) != key) return std::string(*key);
    }
    return std::nullopt;
  }

  std::string_view text_;
  std::vector<Open> open_;
  std::vector<std::string_view> keys_;  // of all open objects, outermost first
  std::deque<std::string> texts_;       // keys that had escapes
  bool key_comes_ = false;
};

}  // namespace

std::optional<std::string> duplicate_key(std::string_view text) { return Finder(text).find(); }

void refuse_duplicate_keys(std::string_view text, const std::string& where) {
  std::optional<std::string> key = duplicate_key(text);
  if (!key) return;
  for (char& c : *key) c = is_control(c) ? ' ' : c;
  if (key->size() > kShown) *key = key->substr(0, kShown) + "...";
  fail("{}: key \"{}\" is given twice in one object; leave one of them out", where, *key);
}

}  // namespace orrery
