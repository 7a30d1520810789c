// Maps the token strings of a model to their ids and back. One arena of bytes and one
// open-addressing table hold them, because a vocabulary has up to 260,000 entries and
// is built at every start. Not thread-safe while it is filled; read-only afterwards.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/span.h"

namespace orrery::text {

class Vocabulary {
 public:
  /// All ids are below this. Tables are sized by the largest id, and a file with a
  /// larger one is broken.
  static constexpr int32_t kMaxId = 1 << 22;

  enum class Added { kNew, kTokenTaken, kIdTaken };

  /// Adds a pair with 0 <= id < kMaxId. Unless it returns kNew, the vocabulary is
  /// unchanged.
  Added add(std::string_view token, int32_t id);
  /// The id of the token, or -1.
  int32_t find(std::string_view token) const;
  /// The token with this id. Empty where there is none, also for an id out of range.
  std::string_view token(int32_t id) const;
  bool has(int32_t id) const { return entry_of(id) >= 0; }
  /// 1 + the largest id.
  int32_t size() const { return static_cast<int32_t>(by_id_.size()); }
  int32_t count() const { return static_cast<int32_t>(entries_.size()); }

 private:
  struct Entry {
    size_t begin;
    uint32_t length;
    int32_t id;
  };
  /// The slot holds the hash, so that a search reads one entry and not every one that
  /// it passes.
  struct Slot {
    uint32_t hash = 0;
    int32_t entry = -1;  // index into entries_, or -1
  };
  int32_t entry_of(int32_t id) const { return id >= 0 && id < size() ? by_id_[id] : -1; }
  std::string_view text(const Entry& entry) const {
    return {bytes_.data() + entry.begin, entry.length};
  }
  size_t slot_of(std::string_view token, uint32_t hash) const;
  void grow();

  std::string bytes_;
  Array<Entry> entries_;
  std::vector<Slot> slots_;  // a power of two of them
  Array<int32_t> by_id_;     // index into entries_, or -1
};

}  // namespace orrery::text
