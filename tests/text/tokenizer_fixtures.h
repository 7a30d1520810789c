// Small tokenizers made on the spot, for tests that need no downloaded model.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/scratch.h"
#include "text/pretokenizer.h"

namespace orrery::testing_support {

/// A folder of this test's own, and its files.
class TemporaryFolder : public ScratchFolder {
 public:
  void write(const char* file, std::string_view text) const {
    write_file_atomic(path() / file, text);
  }
};

inline nlohmann::json added_token(const char* content, int id,
                                  nlohmann::json flags = nlohmann::json::object()) {
  nlohmann::json token = {{"id", id},        {"content", content}, {"single_word", false},
                          {"lstrip", false}, {"rstrip", false},    {"normalized", false},
                          {"special", false}};
  token.update(flags);
  return token;
}

/// Byte-level BPE: ids 0-255 are the bytes, then he ll hell hello _hello lo; five added
/// tokens with every flag.
inline nlohmann::json byte_level_tokenizer() {
  const text::ByteAlphabet alphabet;
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte)
    vocab[std::string(alphabet.of_byte(static_cast<unsigned char>(byte)))] = byte;
  int id = 256;
  for (const char* token : {"he", "ll", "hell", "hello", "\u0120hello", "lo"}) vocab[token] = id++;
  nlohmann::json tokenizer = nlohmann::json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "<r>", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [304], "tokens": ["<s>"]},
                         "<r>": {"id": "<r>", "ids": [301, 301], "tokens": ["<r>", "<r>"]}}},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "merges": [["l", "l"], ["h", "e"], ["he", "ll"], ["hell", "o"], ["\u0120", "hello"], ["l", "o"]]}})");
  tokenizer["added_tokens"] = {added_token("<l>", 300, {{"lstrip", true}}),
                               added_token("<r>", 301, {{"rstrip", true}}),
                               added_token("<w>", 302, {{"single_word", true}}),
                               added_token("<n>", 303, {{"normalized", true}}),
                               added_token("<s>", 304, {{"special", true}}),
                               added_token("<s>x", 305, {{"special", true}})};
  tokenizer["model"]["vocab"] = vocab;
  return tokenizer;
}

/// SentencePiece-style BPE: <unk> <s> </s>, 256 byte tokens from id 3, then _ a b c _a
/// ab bc _ab aa __ ("_" is U+2581).
inline nlohmann::json sentencepiece_tokenizer() {
  nlohmann::json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = 3 + byte;
  int id = 259;
  for (const char* token :
       {"\u2581", "a", "b", "c", "\u2581a", "ab", "bc", "\u2581ab", "aa", "\u2581\u2581"}) {
    vocab[token] = id++;
  }
  nlohmann::json tokenizer = nlohmann::json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null, "post_processor": null,
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
      "merges": ["\u2581 a", "\u2581a b", "b c", "a b", "\u2581 \u2581", "a a"]}})");
  tokenizer["added_tokens"] = {added_token("<unk>", 0, {{"special", true}}),
                               added_token("<s>", 1, {{"special", true}}),
                               added_token("</s>", 2, {{"special", true}})};
  tokenizer["model"]["vocab"] = vocab;
  return tokenizer;
}

}  // namespace orrery::testing_support
