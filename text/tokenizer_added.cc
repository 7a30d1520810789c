#include "text/tokenizer_added.h"

#include <algorithm>

#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

size_t previous_character(std::string_view text, size_t offset) {
  do {
    --offset;
  } while (offset > 0 && continues_character(text[offset]));
  return offset;
}

bool word_before(std::string_view text, size_t offset) {
  return offset > 0 && is_word_character(utf8_code_point(text, previous_character(text, offset)));
}

bool word_after(std::string_view text, size_t offset) {
  return offset < text.size() && is_word_character(utf8_code_point(text, offset));
}

/// The beginning of the white space that ends at `offset`.
size_t space_begin(std::string_view text, size_t offset) {
  while (offset > 0) {
    const size_t previous = previous_character(text, offset);
    if (!is_white_space(utf8_code_point(text, previous))) break;
    offset = previous;
  }
  return offset;
}

size_t space_end(std::string_view text, size_t offset) {
  while (offset < text.size() && is_white_space(utf8_code_point(text, offset))) {
    offset += utf8_length(text[offset]);
  }
  return offset;
}

}  // namespace

void AddedTokenFinder::add(std::string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return;
  int64_t node = 0;
  for (const char c : pattern) {
    const auto [found, is_new] = nodes_[node].next.try_emplace(byte_of(c), nodes_.size());
    node = found->second;
    if (is_new) nodes_.emplace_back();
  }
  starts_[byte_of(pattern[0])] = true;
  // When two contents normalize to one pattern, the first token wins.
  if (nodes_[node].token >= 0) return;
  nodes_[node].token = tokens_.size();
  tokens_.push_back(token);
}

AddedTokenFinder::Match AddedTokenFinder::longest_at(std::string_view text, size_t begin) const {
  Match best{begin, -1};
  int64_t node = 0;
  for (size_t at = begin; at < text.size(); ++at) {
    const auto found = nodes_[node].next.find(byte_of(text[at]));
    if (found == nodes_[node].next.end()) break;
    node = found->second;
    if (nodes_[node].token >= 0) best = {at + 1, nodes_[node].token};
  }
  return best;
}

std::vector<TextSegment> AddedTokenFinder::split(std::string_view text) const {
  std::vector<TextSegment> segments;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    if (!starts_[byte_of(text[at])]) {
      ++at;
      continue;
    }
    const Match match = longest_at(text, at);
    if (match.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.token];
    size_t begin = at, end = match.end;
    at = match.end;
    if (token.single_word && (word_before(text, begin) || word_after(text, end))) continue;
    // White space belongs to the earlier of two tokens that strip it.
    begin = std::max(token.lstrip ? space_begin(text, begin) : begin, done);
    if (token.rstrip) end = space_end(text, end);
    if (begin > done) segments.push_back({done, begin, -1});
    segments.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({done, text.size(), -1});
  return segments;
}

}  // namespace orrery::text
