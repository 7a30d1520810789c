#include "models/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "core/json_read.h"
#include "tests/support/assets.h"
#include "tests/support/scratch.h"

namespace orrery::models {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

/// A small valid config.json with `changes` (a JSON object) laid over it; a null in
/// `erase` removes keys.
std::string config_text(const std::string& model_type, const std::string& changes = "{}",
                        const std::vector<std::string>& erase = {}) {
  nlohmann::json j = {
      {"model_type", model_type},       {"hidden_size", 64},        {"intermediate_size", 96},
      {"num_hidden_layers", 2},         {"num_attention_heads", 4}, {"num_key_value_heads", 2},
      {"max_position_embeddings", 512}, {"vocab_size", 300},        {"rms_norm_eps", 1e-5}};
  j.update(nlohmann::json::parse(changes));
  for (const std::string& key : erase) j.erase(key);
  return j.dump();
}

ModelConfig parse(const std::string& model_type, const std::string& changes = "{}",
                  const std::vector<std::string>& erase = {}) {
  return parse_model_config(config_text(model_type, changes, erase), "config.json");
}

std::string error_of(const std::string& text) {
  try {
    parse_model_config(text, "config.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Config, DefaultsAreThoseOfTransformers) {
  const ModelConfig c = parse("llama", "{}", {"num_key_value_heads", "rms_norm_eps"});
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_EQ(c.rope.head_dim, 16);
  EXPECT_EQ(c.rope.scaling.type, kernels::RopeScaling::Type::kNone);
  EXPECT_EQ(c.rms_norm_eps, 1e-6f);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_FALSE(c.qkv_bias);
  EXPECT_FALSE(c.qk_norm);
  EXPECT_EQ(c.bos_token_id, -1);
  EXPECT_TRUE(c.eos_token_ids.empty());
  EXPECT_EQ(c.max_position_embeddings, 512);
}

TEST(Config, ArchitecturesDifferInBiasAndNorm) {
  EXPECT_TRUE(parse("qwen2").qkv_bias);
  EXPECT_TRUE(parse("qwen3").qk_norm);
  EXPECT_EQ(parse("qwen3").head_dim, 128);
  EXPECT_EQ(parse("qwen3", R"({"head_dim": 32})").head_dim, 32);
  EXPECT_EQ(parse("qwen2", R"({"architectures": ["Qwen2ForCausalLM"]})").model_type, "qwen2");
}

TEST(Config, SlidingWindowLimitsThePositions) {
  EXPECT_EQ(parse("mistral", R"({"sliding_window": 128})").max_position_embeddings, 128);
  EXPECT_EQ(parse("mistral", R"({"sliding_window": null, "max_position_embeddings": 9000})")
                .max_position_embeddings,
            9000);
  EXPECT_EQ(parse("mistral", R"({"max_position_embeddings": 9000})").max_position_embeddings, 4096);
  EXPECT_EQ(parse("qwen2", R"({"sliding_window": 128, "use_sliding_window": false})")
                .max_position_embeddings,
            512);
  EXPECT_EQ(parse("qwen2",
                  R"({"sliding_window": 128, "use_sliding_window": true, "max_window_layers": 0})")
                .max_position_embeddings,
            128);
  EXPECT_EQ(parse("qwen2",
                  R"({"sliding_window": 128, "use_sliding_window": true, "max_window_layers": 2})")
                .max_position_embeddings,
            512);
  EXPECT_EQ(
      parse("qwen3",
            R"({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 64})")
          .max_position_embeddings,
      64);
  EXPECT_EQ(parse("qwen3",
                  R"({"layer_types": ["full_attention", "full_attention"], "sliding_window": 64})")
                .max_position_embeddings,
            512);
}

TEST(Config, RopeScalingInAllThreeLayouts) {
  for (
      const char* text :
      {R"({"rope_theta": 500000.0, "rope_scaling": {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})",
       R"({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})",
       R"({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})"}) {
    const kernels::RopeConfig rope = parse("llama", text).rope;
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.scaling.type, kernels::RopeScaling::Type::kLlama3);
    EXPECT_EQ(rope.scaling.factor, 8.0);
    EXPECT_EQ(rope.scaling.high_freq_factor, 4.0);
    EXPECT_EQ(rope.scaling.original_max_position_embeddings, 8192);
  }
  EXPECT_EQ(parse("llama", R"({"rope_parameters": {"rope_type": "default", "rope_theta": 5000}})")
                .rope.theta,
            5000.0);
  const kernels::RopeScaling yarn =
      parse("qwen2", R"({"rope_scaling": {"type": "yarn", "factor": 4.0,
      "original_max_position_embeddings": 128, "attention_factor": 1.2, "truncate": false}})")
          .rope.scaling;
  EXPECT_EQ(yarn.type, kernels::RopeScaling::Type::kYarn);
  EXPECT_EQ(yarn.beta_fast, 32.0);
  EXPECT_EQ(yarn.attention_factor, 1.2);
  EXPECT_FALSE(yarn.mscale.has_value());
  EXPECT_FALSE(yarn.truncate);
  EXPECT_EQ(parse("llama", R"({"rope_scaling": {"type": "yarn", "factor": null,
      "original_max_position_embeddings": 128}})")
                .rope.scaling.factor,
            4.0);
  EXPECT_EQ(
      parse("llama", R"({"rope_scaling": {"type": "linear", "factor": 2.5}})").rope.scaling.factor,
      2.5);
}

TEST(Config, WrittenTextParsesToTheSameConfig) {
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3"}) {
    const ModelConfig a =
        parse(type, R"({"bos_token_id": 1, "eos_token_id": [2, 3], "tie_word_embeddings": true,
        "head_dim": 24, "rope_theta": 250000, "rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7}})");
    const std::string text = model_config_json(a, "bfloat16");
    EXPECT_THAT(text, HasSubstr("\"torch_dtype\": \"bfloat16\""));
    EXPECT_THAT(text, HasSubstr("\"rms_norm_eps\": 1e-05"));
    const ModelConfig b = parse_model_config(text, "written");
    EXPECT_EQ(model_config_json(b, "bfloat16"), text);
    EXPECT_EQ(b.model_type, type);
    EXPECT_EQ(b.rms_norm_eps, a.rms_norm_eps);
    EXPECT_EQ(b.max_position_embeddings, a.max_position_embeddings);
    EXPECT_EQ(b.rope.scaling.original_max_position_embeddings, 512);
    EXPECT_EQ(b.rope.scaling.mscale, 0.7);
    EXPECT_THAT(b.eos_token_ids, ElementsAre(2, 3));
    EXPECT_EQ(b.qkv_size(), a.qkv_size());
  }
}

TEST(Config, GenerationConfigDecidesTheEosIds) {
  const testing_support::ScratchFolder scratch;
  const std::filesystem::path folder = scratch.path();
  write_file_atomic(folder / "config.json", config_text("qwen2", R"({"eos_token_id": 7})"));
  write_file_atomic(folder / "generation_config.json",
                    R"({"bos_token_id": 5, "eos_token_id": [8, 7]})");
  const ModelConfig c = load_model_config(folder);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(8, 7));
  EXPECT_EQ(c.bos_token_id, 5);
}

TEST(Config, WhatIsNotSupportedIsNamed) {
  const auto error = [](const std::string& type, const std::string& changes) {
    return error_of(config_text(type, changes));
  };
  EXPECT_THAT(error("gpt2", "{}"),
              AllOf(HasSubstr("gpt2"), HasSubstr("llama, mistral, qwen2, qwen3")));
  EXPECT_THAT(error("llama", R"({"architectures": ["LlamaForSequenceClassification"]})"),
              HasSubstr("LlamaForSequenceClassification"));
  for (const char* type : {"llama", "mistral", "qwen3"}) {
    EXPECT_THAT(error(type, R"({"attention_bias": true})"), HasSubstr("attention_bias"));
  }
  EXPECT_THAT(error("llama", R"({"mlp_bias": true})"), HasSubstr("mlp_bias"));
  EXPECT_THAT(error("llama", R"({"hidden_act": "gelu"})"),
              AllOf(HasSubstr("gelu"), HasSubstr("silu")));
  EXPECT_THAT(error("llama", R"({"partial_rotary_factor": 0.5})"),
              HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(
      error("llama",
            R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})"),
      HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(error("llama", R"({"quantization_config": {"bits": 4}})"),
              HasSubstr("quantization_config"));
  EXPECT_THAT(error("qwen3", R"({"layer_types": ["chunked_attention"]})"),
              HasSubstr("chunked_attention"));
  for (const char* kind : {"dynamic", "longrope", "su", "mrope", ""}) {
    EXPECT_THAT(
        error("llama", fmt::format(R"({{"rope_scaling": {{"type": "{}", "factor": 2.0}}}})", kind)),
        AllOf(HasSubstr("rope_scaling: type is"), HasSubstr("yarn")));
  }
  EXPECT_THAT(error("llama",
                    R"({"rope_scaling": {"type": "linear", "factor": 2.0, "mrope_section": [1]}})"),
              HasSubstr("mrope_section"));
  EXPECT_THAT(
      error("llama", R"({"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}})"),
      HasSubstr("type is \"linear\""));
  EXPECT_THAT(error("llama", R"({"rope_scaling": {"type": "llama3", "factor": 2.0}})"),
              HasSubstr("low_freq_factor"));
  EXPECT_THAT(error("llama", R"({"rope_theta": 10000, "rope_parameters": {"rope_theta": 20000}})"),
              HasSubstr("rope_theta"));
}

TEST(Config, SizesAreChecked) {
  const auto error = [](const std::string& changes) {
    return error_of(config_text("llama", changes));
  };
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "vocab_size", "max_position_embeddings"}) {
    for (const char* value : {"0", "-1", "1e30", "9223372036854775807", "18446744073709551615",
                              "1.5", "\"64\"", "[]"}) {
      EXPECT_THAT(error(fmt::format(R"({{"{}": {}}})", key, value)), HasSubstr(key)) << value;
    }
  }
  EXPECT_THAT(error(R"({"num_key_value_heads": 3})"), HasSubstr("must divide"));
  EXPECT_THAT(error(R"({"hidden_size": 66})"), HasSubstr("multiple of num_attention_heads"));
  EXPECT_THAT(error(R"({"head_dim": 15})"), HasSubstr("head_dim"));
  EXPECT_THAT(error(R"({"rms_norm_eps": 0})"), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(error(R"({"rms_norm_eps": "x"})"), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(error(R"({"eos_token_id": 300})"), HasSubstr("eos_token_id"));
  EXPECT_THAT(error(R"({"eos_token_id": [1, "a"]})"), HasSubstr("eos_token_id"));
  EXPECT_THAT(error(R"({"bos_token_id": -2})"), HasSubstr("bos_token_id"));
  EXPECT_THAT(error_of(config_text("llama", "{}", {"hidden_size"})),
              HasSubstr("\"hidden_size\" is missing"));
  EXPECT_THAT(error_of(config_text("qwen2", "{}", {"num_key_value_heads"})),
              HasSubstr("num_key_value_heads"));
}

TEST(Config, BrokenJsonIsOneLineAndNamesTheFile) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("nul"),
        std::string("{\"a\": 1e999}"), std::string("\xff\xfe"), std::string(100000, '['),
        "{\"a\":" + std::string(200000, '{'),
        std::string("{\"model_type\": \"llama\", \"model_type\": \"qwen2\"}")}) {
    const std::string error = error_of(text);
    EXPECT_THAT(error, testing::StartsWith("config.json: ")) << text.substr(0, 40);
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    EXPECT_LT(error.size(), 400u);
  }
  EXPECT_THAT(error_of("{\"model_type\": \"llama\", \"model_type\": \"qwen2\"}"),
              HasSubstr("twice"));
}

TEST(Config, RealFolders) {
  ORRERY_NEEDS_ASSET("models/tinystories-656k/config.json");
  const ModelConfig c = load_model_config(testing_support::assets() / "models/tinystories-656k");
  EXPECT_EQ(c.hidden_size, 128);
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.vocab_size, 2048);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(2));
}

}  // namespace
}  // namespace orrery::models
