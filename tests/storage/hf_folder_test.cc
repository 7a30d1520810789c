#include "storage/hf_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "storage/safetensors.h"
#include "tests/support/assets.h"
#include "tests/support/scratch.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

models::ModelConfig tiny_config(const std::string& model_type, bool tied) {
  return models::parse_model_config(
      fmt::format(
          R"({{"model_type": "{}", "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "vocab_size": 37,
        "max_position_embeddings": 64, "eos_token_id": 2, "tie_word_embeddings": {}}})",
          model_type, tied),
      "tiny");
}

class HfFolder : public testing::Test {
 protected:
  HfFolder() : scratch_("orrery_hf_") { fs::create_directories(folder_); }

  struct Model {
    models::ModelConfig config;
    models::ParameterTable table;
    std::vector<float> flat;
    explicit Model(const models::ModelConfig& c)
        : config(c), table(c), flat(static_cast<size_t>(table.flat_size())) {
      models::initialize_parameters(config, table, 5, flat);
    }
  };

  /// The model's tensors as a writer takes them, for tests that bend them.
  static std::vector<SafetensorsOutput> outputs(const Model& model) {
    std::vector<SafetensorsOutput> result;
    for (const models::Parameter& p : model.table.parameters()) {
      result.push_back({p.name, p.shape, model.table.values(Span(model.flat), p)});
    }
    return result;
  }
  void write(const std::vector<SafetensorsOutput>& tensors,
             const std::string& name = "model.safetensors") const {
    write_safetensors(folder_ / name, tensors, DType::kF32, {});
  }
  std::string error(const Model& model) const {
    try {
      std::vector<float> flat(model.flat.size());
      load_hf_weights({}, folder_, model.config, model.table, flat);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  const testing_support::ScratchPath scratch_;
  const fs::path& folder_ = scratch_.path();
};

TEST_F(HfFolder, SavedFolderLoadsTheSameBits) {
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3"}) {
    for (const bool tied : {false, true}) {
      for (const int64_t shard_bytes : {kMaxShardBytes, int64_t{2000}}) {
        const Model model(tiny_config(type, tied));
        const fs::path out = folder_ / fmt::format("{}_{}_{}", type, tied, shard_bytes);
        save_hf_folder(out, model.config, model.table, model.flat, DType::kF32, {}, shard_bytes);
        EXPECT_TRUE(has_weights(out));
        EXPECT_EQ(fs::exists(out / "model.safetensors.index.json"), shard_bytes == 2000);
        const models::ModelConfig config = models::load_model_config(out);
        EXPECT_EQ(models::model_config_json(config, "x"),
                  models::model_config_json(model.config, "x"));
        std::vector<float> flat(model.flat.size(), NAN);  // the gaps must become zero
        load_hf_weights({}, out, config, models::ParameterTable(config), flat);
        EXPECT_EQ(flat, model.flat);
      }
    }
  }
}

TEST_F(HfFolder, SixteenBitFoldersHoldRoundedWeights) {
  const Model model(tiny_config("llama", true));
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const fs::path out = folder_ / std::string(dtype_name(dtype));
    save_hf_folder(out, model.config, model.table, model.flat, dtype, {});
    std::vector<float> flat(model.flat.size());
    load_hf_weights({}, out, model.config, model.table, flat);
    for (size_t i = 0; i < flat.size(); ++i) {
      EXPECT_EQ(flat[i], dtype == DType::kBF16 ? bf16_to_f32(f32_to_bf16(model.flat[i]))
                                               : f16_to_f32(f32_to_f16(model.flat[i])));
    }
  }
}

TEST_F(HfFolder, TiedEmbeddingsUnderEitherNameOrBoth) {
  const Model model(tiny_config("llama", true));
  auto tensors = outputs(model);
  ASSERT_EQ(tensors[0].name, "model.embed_tokens.weight");
  tensors[0].name = "lm_head.weight";
  write(tensors);
  EXPECT_EQ(error(model), "no error");

  tensors.push_back(tensors[0]);
  tensors.back().name = "model.embed_tokens.weight";
  write(tensors);
  EXPECT_EQ(error(model), "no error");

  std::vector<float> other(tensors[0].values.begin(), tensors[0].values.end());
  other[7] += 1.0f;
  tensors[0].values = other;
  write(tensors);
  EXPECT_THAT(error(model), AllOf(HasSubstr("ties"), HasSubstr("element 7")));

  const Model untied(tiny_config("llama", false));
  write(outputs(model));
  EXPECT_THAT(error(untied), AllOf(HasSubstr("lm_head.weight"), HasSubstr("tie_word_embeddings")));
}

TEST_F(HfFolder, MissingWrongAndExtraTensorsAreNamed) {
  const Model model(tiny_config("qwen2", true));
  EXPECT_FALSE(has_weights(folder_));
  EXPECT_THAT(error(model), HasSubstr("holds neither"));
  write_file_atomic(folder_ / "pytorch_model.bin", "x");
  EXPECT_THAT(error(model), HasSubstr("pytorch_model.bin"));

  auto tensors = outputs(model);
  const SafetensorsOutput last = tensors.back();
  tensors.pop_back();
  write(tensors);
  EXPECT_THAT(error(model), AllOf(HasSubstr("missing"), HasSubstr(last.name)));

  const std::vector<float> extra(4);
  tensors.push_back(last);
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {4}, extra});
  write(tensors);
  EXPECT_EQ(error(model), "no error");
  tensors.push_back({"model.layers.2.mlp.up_proj.weight", {4}, extra});
  write(tensors);
  EXPECT_THAT(error(model),
              AllOf(HasSubstr("no place"), HasSubstr("model.layers.2.mlp.up_proj.weight")));

  tensors = outputs(model);
  std::swap(tensors[0].shape[0], tensors[0].shape[1]);
  write(tensors);
  EXPECT_THAT(error(model), AllOf(HasSubstr("[12, 37]"), HasSubstr("[37, 12]")));
}

TEST_F(HfFolder, WeightsThatAreNotFiniteAreNamed) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Model model(tiny_config("qwen3", false));
    const models::Parameter& p = model.table.parameters()[3];
    model.table.values(Span(model.flat), p)[11] = bad;
    write(outputs(model));
    EXPECT_THAT(error(model), HasSubstr(p.name + "[11]"));
    EXPECT_THROW(
        save_hf_folder(folder_ / "out", model.config, model.table, model.flat, DType::kF32, {}),
        Error);
    EXPECT_FALSE(fs::exists(folder_ / "out"));
  }
}

TEST_F(HfFolder, BrokenIndexesAreNamed) {
  const Model model(tiny_config("llama", false));
  const fs::path out = folder_ / "out";
  const auto load_error = [&] {
    try {
      std::vector<float> flat(model.flat.size());
      load_hf_weights({}, out, model.config, model.table, flat);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  save_hf_folder(out, model.config, model.table, model.flat, DType::kF32, {}, 2000);
  const fs::path index_path = out / "model.safetensors.index.json";
  const nlohmann::json good = nlohmann::json::parse(read_file(index_path));
  EXPECT_EQ(good["metadata"]["total_size"], model.table.parameter_count() * 4);

  for (const char* name : {"../x.safetensors", "/etc/passwd", "..", "", "a/b"}) {
    nlohmann::json bad = good;
    bad["weight_map"]["lm_head.weight"] = name;
    write_file_atomic(index_path, bad.dump());
    EXPECT_THAT(load_error(), HasSubstr("same folder")) << name;
  }
  nlohmann::json bad = good;
  bad["weight_map"]["lm_head.weight"] = "model-00001-of-00099.safetensors";
  write_file_atomic(index_path, bad.dump());
  EXPECT_THAT(load_error(),
              AllOf(HasSubstr("model-00001-of-00099.safetensors"), HasSubstr("missing")));
  bad["weight_map"]["lm_head.weight"] = good["weight_map"]["model.embed_tokens.weight"];
  write_file_atomic(index_path, bad.dump());
  EXPECT_THAT(load_error(), HasSubstr("lm_head.weight is not in"));
  bad["weight_map"] = 3;
  write_file_atomic(index_path, bad.dump());
  EXPECT_THAT(load_error(), HasSubstr("weight_map"));
  write_file_atomic(index_path, good.dump());
  EXPECT_EQ(load_error(), "no error");
  fs::remove(out / good["weight_map"]["model.norm.weight"].get<std::string>());
  EXPECT_THAT(load_error(), HasSubstr("which is missing"));
}

TEST_F(HfFolder, SaveNeverOverwritesAndCopiesTheTokenizer) {
  const Model model(tiny_config("llama", true));
  write_file_atomic(folder_ / "tokenizer.json", "{}");
  write_file_atomic(folder_ / "generation_config.json", "{ }");
  write_file_atomic(folder_ / "unrelated.txt", "x");
  const fs::path out = folder_ / "out";
  save_hf_folder(out, model.config, model.table, model.flat, DType::kF32, folder_);
  EXPECT_EQ(read_file(out / "tokenizer.json"), "{}");
  EXPECT_EQ(read_file(out / "generation_config.json"), "{ }");
  EXPECT_FALSE(fs::exists(out / "unrelated.txt"));
  EXPECT_THROW(save_hf_folder(out, model.config, model.table, model.flat, DType::kF32, {}), Error);
  EXPECT_THROW(save_hf_folder(folder_ / "absent" / "tokenizer.json" / "x", model.config,
                              model.table, std::span(model.flat).first(0), DType::kF32, {}),
               Error);
}

TEST_F(HfFolder, RealModelsLoad) {
  for (const char* name : {"models/tinystories-656k", "models/stories260K-hf"}) {
    ORRERY_NEEDS_ASSET(name);
    const fs::path source = testing_support::assets() / name;
    const models::ModelConfig config = models::load_model_config(source);
    const models::ParameterTable table(config);
    std::vector<float> flat(static_cast<size_t>(table.flat_size()), NAN), again(flat);
    Context threads;
    threads.threads = 3;
    load_hf_weights(threads, source, config, table, flat);
    const SafetensorsFile file(source / "model.safetensors");
    const auto* tensor = file.find("model.layers.1.mlp.down_proj.weight");
    ASSERT_NE(tensor, nullptr);
    std::vector<float> values(static_cast<size_t>(tensor->size));
    file.read_f32(*tensor, 0, values);
    const models::Parameter* p = table.find(tensor->name);
    EXPECT_TRUE(std::ranges::equal(values, table.values(Span(flat), *p)));

    const fs::path out = folder_ / fs::path(name).filename();
    save_hf_folder(out, config, table, flat, DType::kF32, source);
    load_hf_weights({}, out, models::load_model_config(out), table, again);
    EXPECT_EQ(flat, again);
    EXPECT_EQ(read_file(out / "tokenizer.json"), read_file(source / "tokenizer.json"));
  }
}

}  // namespace
}  // namespace orrery::storage
