#include "text/tokenizer_vocabulary.h"

#include <functional>

#include "core/error.h"

namespace orrery::text {
namespace {

uint32_t hash_of(std::string_view token) {
  const size_t hash = std::hash<std::string_view>{}(token);
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

}  // namespace

size_t Vocabulary::slot_of(std::string_view token, uint32_t hash) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = hash & mask;
  while (slots_[slot].entry >= 0) {
    if (slots_[slot].hash == hash && text(entries_[slots_[slot].entry]) == token) break;
    slot = (slot + 1) & mask;
  }
  return slot;
}

void Vocabulary::grow() {
  std::vector<Slot> old(slots_.empty() ? 1024 : slots_.size() * 2);
  old.swap(slots_);
  const size_t mask = slots_.size() - 1;
  for (const Slot& moved : old) {
    if (moved.entry < 0) continue;
    size_t slot = moved.hash & mask;
    while (slots_[slot].entry >= 0) slot = (slot + 1) & mask;
    slots_[slot] = moved;
  }
}

Vocabulary::Added Vocabulary::add(std::string_view token, int32_t id) {
  ORRERY_CHECK(id >= 0 && id < kMaxId, "token id {}", id);
  if (entries_.size() * 2 >= std::ssize(slots_)) grow();
  const uint32_t hash = hash_of(token);
  const size_t slot = slot_of(token, hash);
  if (slots_[slot].entry >= 0) return Added::kTokenTaken;
  if (has(id)) return Added::kIdTaken;
  if (id >= size()) by_id_.resize(id + 1, -1);
  const int32_t index = count();
  slots_[slot] = {hash, index};
  by_id_[id] = index;
  entries_.push_back({bytes_.size(), static_cast<uint32_t>(token.size()), id});
  bytes_ += token;
  return Added::kNew;
}

int32_t Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const int32_t index = slots_[slot_of(token, hash_of(token))].entry;
  return index < 0 ? -1 : entries_[index].id;
}

std::string_view Vocabulary::token(int32_t id) const {
  const int32_t index = entry_of(id);
  return index < 0 ? std::string_view() : text(entries_[index]);
}

}  // namespace orrery::text
