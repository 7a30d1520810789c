// Input: a JSONL file of rows to learn from, read strictly and with bad rows skipped,
// with a chat template and without. What is accepted keeps its promises: a prompt,
// something to learn at the end of the response, and no more tokens than allowed.
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/sft_rows.h"
#include "tests/fuzz/fuzzing.h"
#include "text/pretokenizer.h"

namespace {

using namespace orrery;

/// Ids are the 256 bytes, then <s> and <end>.
text::Tokenizer byte_tokenizer(const fuzzing::Scratch& scratch) {
  const text::ByteAlphabet alphabet;
  nlohmann::json tokenizer = nlohmann::json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "merges": []}})");
  for (int byte = 0; byte < 256; ++byte)
    tokenizer["model"]["vocab"][std::string(alphabet.of_byte(static_cast<unsigned char>(byte)))] =
        byte;
  for (const char* token : {"<s>", "<end>"}) {
    tokenizer["added_tokens"].push_back({{"id", token == std::string("<s>") ? 256 : 257},
                                         {"content", token},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", false},
                                         {"special", true}});
  }
  scratch.write("tokenizer.json", tokenizer.dump());
  constexpr const char* kTemplate =
      "{% for m in messages %}{{ '[' + m.role + ']' }}{{ m.content }}{% if m.tool_calls %}{{ "
      "m.tool_calls }}{% endif %}{{ '<end>' }}{% endfor %}{% if add_generation_prompt %}{{ "
      "'[assistant]' }}{% endif %}";
  const auto config = scratch.write(
      "tokenizer_config.json",
      nlohmann::json{{"bos_token", "<s>"}, {"eos_token", "<end>"}, {"chat_template", kTemplate}}
          .dump());
  return text::Tokenizer::load(config.parent_path());
}

class NoItems final : public actors::Environment {
 public:
  uint64_t size(actors::Split /*split*/) const override { return 0; }
  std::unique_ptr<actors::Episode> reset(actors::Split /*split*/,
                                         uint64_t /*index*/) const override {
    return nullptr;
  }
  std::optional<actors::Demonstration> demonstration(uint64_t /*index*/) const override {
    return std::nullopt;
  }
};

void check(const experiments::SftExample& example, int64_t max_length) {
  if (example.prompt.empty() || example.response.empty())
    fuzzing::broken("a prompt and a response");
  if (example.tokens() > max_length) fuzzing::broken("at most sft.max_length tokens");
  if (!std::isfinite(example.weight) || example.weight < 0)
    fuzzing::broken("a weight is finite and >= 0");
  if (example.loss_mask.empty()) return;
  if (example.loss_mask.size() != example.response.size())
    fuzzing::broken("a mask of each response token");
  if (example.loss_mask.front() == 0 || example.loss_mask.back() == 0)
    fuzzing::broken("a response begins and ends with what is learned");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fuzzing::Scratch scratch;
  static const text::Tokenizer tokenizer = byte_tokenizer(scratch);
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::string file = scratch.write("rows.jsonl", text).string();
  fuzzing::accepted([&] { experiments::check_plain_text("rows", text); });
  const NoItems none;
  for (const bool chat : {false, true}) {
    for (const auto on_error : {proto::DataSection::FAIL, proto::DataSection::SKIP}) {
      proto::Config config;
      config.mutable_data()->set_apply_chat_template(chat);
      config.mutable_data()->set_on_error(on_error);
      config.mutable_sft()->set_max_length(64);
      actors::CheckSetup setup;
      setup.tell = false;
      const actors::PromptSource source(config.data(), none, tokenizer, /*seed=*/1, setup,
                                        actors::PromptUse{0, false});
      fuzzing::accepted([&] {
        const experiments::SftRows rows("rows", {file}, config, source, tokenizer, setup);
        for (const experiments::SftExample& example : rows.examples())
          check(example, config.sft().max_length());
      });
    }
  }
  return 0;
}
