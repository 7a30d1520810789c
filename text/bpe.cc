#include "text/bpe.h"

#include <algorithm>

#include "core/error.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

void require_empty(const JsonNode& model, const char* key) {
  if (!model.string_or(key, "").empty()) {
    model.member(key).fail_here(
        "subword affixes are not supported; only byte-level and SentencePiece-style BPE are");
  }
}

/// A symbol of the piece. The symbols are a doubly linked list in an array; one that
/// was merged into its left neighbour has the id -1.
struct Symbol {
  int32_t id;
  int32_t previous;
  int32_t next;
};

/// A possible merge of the symbol at `position` with the next one. A candidate may be
/// stale, which shows when it comes to the top of the heap.
struct Candidate {
  int32_t rank;
  int32_t position;
  int32_t id;
  /// The heap has the best rank on top, and the leftmost of equal ones.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

}  // namespace

BpeModel::BpeModel(TokenizerJson& parsed, const std::string& file) {
  const JsonNode root(parsed.rest, file, "");
  const JsonNode model = root.member("model");
  if (!model.is_object())
    root.fail_here("has no \"model\" object; is this a tokenizer.json of Hugging Face tokenizers?");
  // A file from before tokenizers 0.8 has no type. It is a BPE model if it has merges.
  const std::string type =
      model.has("type") ? model.type() : (parsed.merges.empty() ? "(none)" : "BPE");
  if (type != "BPE") {
    model.fail_here(fmt::format("model type {} is not supported; only BPE is", type.substr(0, 40)));
  }
  if (parsed.vocabulary.count() == 0)
    model.fail_here("has no \"vocab\" object with tokens and ids");
  const JsonNode dropout = model.member("dropout");
  if (!dropout.is_null() && dropout.as_number() != 0) {
    dropout.fail_here("BPE dropout makes encoding random and is not supported; set it to null");
  }
  require_empty(model, "continuing_subword_prefix");
  require_empty(model, "end_of_word_suffix");
  fuse_unknown_ = model.bool_or("fuse_unk", false);
  byte_fallback_ = model.bool_or("byte_fallback", false);
  ignore_merges_ = model.bool_or("ignore_merges", false);
  vocabulary_ = std::move(parsed.vocabulary);
  const JsonNode unknown = model.member("unk_token");
  if (!unknown.is_null()) {
    unknown_id_ = vocabulary_.find(unknown.as_string());
    if (unknown_id_ < 0) {
      missing_unknown_ = fmt::format("{}: model.unk_token: \"{}\" is not in model.vocab", file,
                                     unknown.as_string().substr(0, 80));
    }
  }
  for (size_t c = 0; c < ascii_ids_.size(); ++c) {
    const char text = char_of(c);
    ascii_ids_[c] = vocabulary_.find({&text, 1});
  }
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] = byte_fallback_ ? vocabulary_.find(fmt::format("<0x{:02X}>", byte)) : -1;
  }
  add_merges(parsed, file);
}

size_t BpeModel::slot_of(uint64_t pair) const {
  const size_t mask = merges_.size() - 1;
  size_t slot = pair * 0x9E3779B97F4A7C15u >> 32 & mask;
  while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & mask;
  return slot;
}

void BpeModel::add_merges(const TokenizerJson& parsed, const std::string& file) {
  size_t slots = 16;
  while (slots < parsed.merges.size() * 2) slots *= 2;
  merges_.resize(slots);
  std::string joined;
  int32_t id = -1;
  int32_t rank = 0;
  for (const MergeText& merge : parsed.merges) {
    const std::string_view left = parsed.left(merge), right = parsed.right(merge);
    joined.assign(left);
    joined += right;
    const int32_t left_id = vocabulary_.find(left), right_id = vocabulary_.find(right);
    // Vocabularies list merged tokens in the order of their merges, so the id after the
    // previous one is nearly always right.
    id = vocabulary_.has(id + 1) && vocabulary_.token(id + 1) == joined ? id + 1
                                                                        : vocabulary_.find(joined);
    if (left_id < 0 || right_id < 0 || id < 0) {
      const std::string_view missing = left_id < 0 ? left : right_id < 0 ? right : joined;
      fail("{}: model.merges[{}]: token \"{}\" is not in model.vocab", file, rank,
           missing.substr(0, 80));
    }
    // A repeated rule has its last rank, as in Hugging Face tokenizers.
    const uint64_t pair = pair_of(left_id, right_id);
    merges_[slot_of(pair)] = {pair, rank++, id};
  }
}

const BpeModel::Merge* BpeModel::find_merge(int32_t left, int32_t right) const {
  const Merge& merge = merges_[slot_of(pair_of(left, right))];
  return merge.pair == kNoPair ? nullptr : &merge;
}

void BpeModel::append_symbols(std::string_view piece, Array<int32_t>& symbols) const {
  bool unknown_open = false;  // an unknown token waits for neighbours that it is fused with
  for (size_t offset = 0; offset < piece.size();) {
    const size_t length = utf8_length(piece[offset]);
    const std::string_view character = piece.substr(offset, length);
    offset += length;
    const int32_t id =
        length == 1 ? ascii_ids_[byte_of(character[0])] : vocabulary_.find(character);
    if (id >= 0) {
      if (unknown_open) symbols.push_back(unknown_id_);
      unknown_open = false;
      symbols.push_back(id);
      continue;
    }
    const auto byte_id = [&](char byte) { return byte_ids_[byte_of(byte)]; };
    if (byte_fallback_ &&
        std::all_of(character.begin(), character.end(), [&](char b) { return byte_id(b) >= 0; })) {
      for (const char byte : character) symbols.push_back(byte_id(byte));
      continue;
    }
    if (!missing_unknown_.empty())
      fail("{}, and the text needs it for \"{}\"", missing_unknown_, character);
    // As in Hugging Face tokenizers, a character vanishes that has no token at all.
    if (unknown_id_ < 0) continue;
    if (unknown_open && !fuse_unknown_) symbols.push_back(unknown_id_);
    unknown_open = true;
  }
  if (unknown_open) symbols.push_back(unknown_id_);
}

void BpeModel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  if (ignore_merges_) {
    if (const int32_t id = vocabulary_.find(piece); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  Array<int32_t> initial;
  initial.reserve(std::ssize(piece));
  append_symbols(piece, initial);
  const int64_t count = initial.size();
  ORRERY_CHECK(count < (int64_t{1} << 31), "text of {} symbols", count);

  Array<Symbol> symbols(count);
  Array<Candidate> heap;
  heap.reserve(count);
  const auto candidate = [&](int32_t position) {
    const Merge* merge = find_merge(symbols[position].id, symbols[symbols[position].next].id);
    if (merge == nullptr) return false;
    heap.push_back({merge->rank, position, merge->id});
    return true;
  };
  for (int32_t i = 0; i < count; ++i) symbols[i] = {initial[i], i - 1, i + 1 < count ? i + 1 : -1};
  for (int32_t i = 0; i + 1 < count; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end());

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate top = heap.back();
    heap.pop_back();
    Symbol& left = symbols[top.position];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;  // the pair has changed since
    left.id = merge->id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = top.position;
    if (left.previous >= 0 && candidate(left.previous)) std::push_heap(heap.begin(), heap.end());
    if (left.next >= 0 && candidate(top.position)) std::push_heap(heap.begin(), heap.end());
  }
  for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace orrery::text
