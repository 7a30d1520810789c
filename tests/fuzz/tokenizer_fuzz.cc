// Input: tokenizer.json, then perhaps tokenizer_config.json, generation_config.json, a
// text to encode, special_tokens_map.json, added_tokens.json and config.json, between
// lines "===".
#include "text/tokenizer.h"

#include <array>

#include "tests/fuzz/fuzzing.h"
#include "text/tokenizer_utf8.h"

namespace {

void use(const orrery::text::Tokenizer& tokenizer, const std::string& text) {
  using orrery::text::find_invalid_utf8;
  std::vector<int32_t> ids;
  if (!orrery::fuzzing::accepted(
          [&] { ids = tokenizer.encode(text, /*add_special_tokens=*/true); }))
    return;
  for (const int32_t id : ids) {
    if (id < 0 || id >= tokenizer.vocab_size())
      orrery::fuzzing::broken("an id is below vocab_size()");
  }
  ids.insert(ids.end(), {0, 1, 2, tokenizer.vocab_size() - 1, tokenizer.vocab_size(), -1});
  for (const bool skip : {false, true}) {
    const std::string whole = tokenizer.decode(ids, skip);
    if (orrery::text::find_invalid_utf8(whole) != std::string::npos)
      orrery::fuzzing::broken("decoded text is UTF-8");
    orrery::text::IncrementalDecoder decoder(tokenizer, skip);
    std::string pushed;
    for (const int32_t id : ids) pushed += decoder.push(id);
    pushed += decoder.finish();
    if (orrery::text::find_invalid_utf8(pushed) != std::string::npos)
      orrery::fuzzing::broken("streamed text is UTF-8");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace orrery;
  static const fuzzing::Scratch scratch;
  constexpr size_t kText = 3;
  static constexpr std::array<const char*, 7> kFiles = {"tokenizer.json",
                                                        "tokenizer_config.json",
                                                        "generation_config.json",
                                                        "",
                                                        "special_tokens_map.json",
                                                        "added_tokens.json",
                                                        "config.json"};
  const std::vector<std::string> parts = fuzzing::parts({data, size});
  for (size_t i = 0; i < kFiles.size(); ++i) {
    if (i == kText) continue;
    if (i < parts.size() && (i == 0 || !parts[i].empty())) {
      scratch.write(kFiles[i], parts[i]);
    } else {
      std::filesystem::remove(scratch.path() / kFiles[i]);
    }
  }
  fuzzing::accepted([&] {
    const text::Tokenizer tokenizer = text::Tokenizer::load(scratch.path());
    const std::string text = "Hello  hello\n12 \xC3\xA9\xE2\x96\x81 ab<s>x";
    fuzzing::accepted([&] { use(tokenizer, text); });
    if (parts.size() > kText) fuzzing::accepted([&] { use(tokenizer, parts[kText]); });
  });
  return 0;
}
