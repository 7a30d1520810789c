#include "models/config.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/json_read.h"
#include "core/lfs_pointer.h"

namespace orrery::models {
namespace {

using nlohmann::json;

// Upper limits, far above any model, so that no product of sizes overflows int64:
// layers * (hidden * intermediate * 3 + heads * head_dim * hidden * 4) < 2^12 * 2^43,
// and vocab * hidden <= 2^44.
constexpr int64_t kMaxLayers = int64_t{1} << 12;
constexpr int64_t kMaxHidden = int64_t{1} << 20;
constexpr int64_t kMaxHeads = int64_t{1} << 10;
constexpr int64_t kMaxHeadDim = int64_t{1} << 10;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 24;
constexpr size_t kMaxEosIds = 256;

struct Architecture {
  std::string_view model_type, class_name;
};
constexpr std::array<Architecture, 4> kArchitectures = {{{"llama", "LlamaForCausalLM"},
                                                         {"mistral", "MistralForCausalLM"},
                                                         {"qwen2", "Qwen2ForCausalLM"},
                                                         {"qwen3", "Qwen3ForCausalLM"}}};

std::string supported_architectures() {
  std::string text;
  for (const Architecture& a : kArchitectures)
    text += fmt::format("{}{}", text.empty() ? "" : ", ", a.model_type);
  return text;
}

const Architecture* find_architecture(std::string_view model_type) {
  for (const Architecture& a : kArchitectures) {
    if (a.model_type == model_type) return &a;
  }
  return nullptr;
}

const Architecture& read_architecture(const JsonObject& object) {
  const std::string model_type = object.text("model_type");
  const Architecture* architecture = find_architecture(model_type);
  if (architecture == nullptr) {
    object.reject("model_type", fmt::format("supported are {}", supported_architectures()));
  }
  if (const json* names = object.find("architectures")) {
    const bool matches = names->is_array() && names->size() == 1 &&
                         (*names)[0] == std::string(architecture->class_name);
    if (!matches) {
      fail("{}: architectures is {}; model_type {} goes with [\"{}\"]", object.where(),
           names->is_array() && names->size() == 1 ? json_excerpt((*names)[0])
                                                   : json_excerpt(*names),
           model_type, architecture->class_name);
    }
  }
  return *architecture;
}

kernels::RopeScaling read_scaling(const JsonObject& rope, int64_t max_positions) {
  rope.only_keys({"type", "rope_type", "rope_theta", "partial_rotary_factor", "factor",
                  "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
                  "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim",
                  "truncate"});
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  if (rope.text("type", type) != type)
    rope.reject("type", fmt::format("rope_type says \"{}\"", type));

  kernels::RopeScaling scaling;
  if (type == "default") return scaling;
  constexpr double kMaxFactor = 1e6;
  if (type == "linear") {
    scaling.type = kernels::RopeScaling::Type::kLinear;
    scaling.factor = rope.number("factor", 1.0, kMaxFactor);
  } else if (type == "llama3") {
    scaling.type = kernels::RopeScaling::Type::kLlama3;
    scaling.factor = rope.number("factor", 1.0, kMaxFactor);
    scaling.low_freq_factor = rope.number("low_freq_factor", 1e-6, kMaxFactor);
    scaling.high_freq_factor = rope.number("high_freq_factor", 1e-6, kMaxFactor);
    if (scaling.high_freq_factor <= scaling.low_freq_factor) {
      rope.reject("high_freq_factor",
                  fmt::format("it must exceed low_freq_factor, {}", scaling.low_freq_factor));
    }
    scaling.original_max_position_embeddings =
        rope.integer("original_max_position_embeddings", 1, kMaxPositions);
  } else if (type == "yarn") {
    scaling.type = kernels::RopeScaling::Type::kYarn;
    scaling.original_max_position_embeddings =
        rope.integer("original_max_position_embeddings", 1, kMaxPositions, max_positions);
    // A null factor (DeepSeek's convention) is the ratio of the two lengths.
    const double ratio = 1.0 * max_positions / scaling.original_max_position_embeddings;
    scaling.factor =
        rope.number("factor", 1.0, kMaxFactor,
                    rope.has_key("factor") && ratio >= 1.0 ? std::optional(ratio) : std::nullopt);
    scaling.beta_fast = rope.number("beta_fast", 1e-6, kMaxFactor, scaling.beta_fast);
    scaling.beta_slow = rope.number("beta_slow", 1e-6, kMaxFactor, scaling.beta_slow);
    if (scaling.beta_fast < scaling.beta_slow) {
      rope.reject("beta_fast", fmt::format("it must be at least beta_slow, {}", scaling.beta_slow));
    }
    const auto optional_number = [&](const char* key, double low) -> std::optional<double> {
      if (rope.find(key) == nullptr) return std::nullopt;
      return rope.number(key, low, kMaxFactor);
    };
    scaling.attention_factor = optional_number("attention_factor", 1e-6);
    scaling.mscale = optional_number("mscale", 0.0);
    scaling.mscale_all_dim = optional_number("mscale_all_dim", 0.0);
    scaling.truncate = rope.boolean("truncate", true);
  } else {
    rope.reject(rope.find("rope_type") ? "rope_type" : "type",
                "supported are default, linear, llama3 and yarn");
  }
  return scaling;
}

/// The older layout has rope_theta and rope_scaling at the top; transformers 5 has all
/// of it in rope_parameters.
kernels::RopeConfig read_rope(const JsonObject& object, int64_t head_dim, int64_t max_positions) {
  const json* scaling = object.find("rope_scaling");
  const json* parameters = object.find("rope_parameters");
  if (scaling != nullptr && parameters != nullptr && *scaling != *parameters) {
    fail("{}: rope_scaling and rope_parameters differ; keep the one that is right", object.where());
  }
  kernels::RopeConfig rope;
  rope.head_dim = head_dim;
  constexpr double kMinTheta = 1.0, kMaxTheta = 1e12;
  const double top_theta = object.number("rope_theta", kMinTheta, kMaxTheta, 10000.0);
  rope.theta = top_theta;
  object.number("partial_rotary_factor", 1.0, 1.0, 1.0);
  if (const json* chosen = parameters != nullptr ? parameters : scaling) {
    const JsonObject fields(
        *chosen, object.where() + (parameters != nullptr ? ": rope_parameters" : ": rope_scaling"));
    fields.number("partial_rotary_factor", 1.0, 1.0, 1.0);
    rope.theta = fields.number("rope_theta", kMinTheta, kMaxTheta, top_theta);
    if (object.find("rope_theta") != nullptr && rope.theta != top_theta) {
      fields.reject("rope_theta", fmt::format("the rope_theta beside it is {}", top_theta));
    }
    rope.scaling = read_scaling(fields, max_positions);
  }
  return rope;
}

/// Longest sequence inside which no layer's sliding window hides anything.
int64_t window_limit(const JsonObject& object, std::string_view model_type, int64_t layers) {
  constexpr int64_t kDefaultWindow = 4096;  // transformers' default where the key is absent
  if (model_type == "llama") return kMaxPositions;
  const auto window = [&]() -> int64_t {
    if (object.has_key("sliding_window") && object.find("sliding_window") == nullptr)
      return kMaxPositions;
    return object.integer("sliding_window", 1, kMaxPositions, kDefaultWindow);
  };
  if (model_type == "mistral") return window();

  if (const json* types = object.find("layer_types")) {
    if (!types->is_array()) object.reject("layer_types", "a list is needed");
    bool sliding = false;
    for (const json& type : *types) {
      if (type != "full_attention" && type != "sliding_attention") {
        fail("{}: layer_types holds {}; supported are \"full_attention\" and \"sliding_attention\"",
             object.where(), json_excerpt(type));
      }
      sliding |= type == "sliding_attention";
    }
    return sliding ? window() : kMaxPositions;
  }
  if (!object.boolean("use_sliding_window", false)) return kMaxPositions;
  return object.integer("max_window_layers", 0, kMaxLayers, 0) >= layers ? kMaxPositions : window();
}

std::vector<int64_t> read_eos(const JsonObject& object, int64_t vocab) {
  const json* value = object.find("eos_token_id");
  if (value == nullptr) return {};
  std::vector<int64_t> ids;
  const auto add = [&](const json& id) {
    const auto number = json_integer(id);
    if (!number || *number < 0 || *number >= vocab) {
      fail("{}: eos_token_id holds {}; ids run from 0 to {}", object.where(), json_excerpt(id),
           vocab - 1);
    }
    if (std::find(ids.begin(), ids.end(), *number) == ids.end()) ids.push_back(*number);
  };
  if (!value->is_array()) {
    add(*value);
    return ids;
  }
  if (value->size() > kMaxEosIds) object.reject("eos_token_id", "it is too long");
  for (const json& id : *value) add(id);
  return ids;
}

void reject_what_changes_the_mathematics(const JsonObject& object, std::string_view model_type) {
  const std::string activation = object.text("hidden_act", "silu");
  if (activation != "silu" && activation != "swish")
    object.reject("hidden_act", "supported is \"silu\"");
  // Qwen2 has its biases always, and reads no such key.
  if (model_type != "qwen2" && object.boolean("attention_bias", false)) {
    object.reject("attention_bias",
                  fmt::format("biases in the attention of {} are not supported", model_type));
  }
  if (object.boolean("mlp_bias", false))
    object.reject("mlp_bias", "biases in the MLP are not supported");
  if (object.boolean("use_mrope", false))
    object.reject("use_mrope", "multimodal RoPE is not supported");
  if (object.boolean("rope_interleaved", false))
    object.reject("rope_interleaved", "supported is the half-split order");
  if (object.find("quantization_config") != nullptr) {
    object.reject("quantization_config",
                  "quantized weights are not supported; use the F32, BF16 or F16 model");
  }
}

json rope_scaling_json(const kernels::RopeScaling& s) {
  switch (s.type) {
    case kernels::RopeScaling::Type::kNone:
      return nullptr;
    case kernels::RopeScaling::Type::kLinear:
      return {{"rope_type", "linear"}, {"factor", s.factor}};
    case kernels::RopeScaling::Type::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", s.factor},
              {"low_freq_factor", s.low_freq_factor},
              {"high_freq_factor", s.high_freq_factor},
              {"original_max_position_embeddings", s.original_max_position_embeddings}};
    case kernels::RopeScaling::Type::kYarn: {
      json out = {{"rope_type", "yarn"},
                  {"factor", s.factor},
                  {"original_max_position_embeddings", s.original_max_position_embeddings},
                  {"beta_fast", s.beta_fast},
                  {"beta_slow", s.beta_slow},
                  {"truncate", s.truncate}};
      if (s.attention_factor) out["attention_factor"] = *s.attention_factor;
      if (s.mscale) out["mscale"] = *s.mscale;
      if (s.mscale_all_dim) out["mscale_all_dim"] = *s.mscale_all_dim;
      return out;
    }
  }
  return nullptr;
}

/// The decimal a person would write for a float, so that 1e-5f is written 1e-05 and
/// not 9.999999747378752e-06.
double shortest_decimal(float value) { return std::stod(fmt::format("{}", value)); }

}  // namespace

ModelConfig parse_model_config(const std::string& text, const std::string& where) {
  const json parsed = parse_json_strictly(text, where);
  const JsonObject object(parsed, where);
  const Architecture& architecture = read_architecture(object);
  reject_what_changes_the_mathematics(object, architecture.model_type);

  ModelConfig config;
  config.model_type = architecture.model_type;
  config.hidden_size = object.integer("hidden_size", 1, kMaxHidden);
  config.intermediate_size = object.integer("intermediate_size", 1, kMaxHidden);
  config.num_hidden_layers = object.integer("num_hidden_layers", 1, kMaxLayers);
  config.num_attention_heads = object.integer("num_attention_heads", 1, kMaxHeads);
  // A null means as many as query heads everywhere; transformers' default for an absent
  // key is that in Llama only.
  const bool kv_default = config.model_type == "llama" || object.has_key("num_key_value_heads");
  config.num_key_value_heads =
      object.integer("num_key_value_heads", 1, kMaxHeads,
                     kv_default ? std::optional(config.num_attention_heads) : std::nullopt);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    object.reject("num_key_value_heads", fmt::format("it must divide num_attention_heads, {}",
                                                     config.num_attention_heads));
  }
  if (object.find("head_dim") != nullptr) {
    config.head_dim = object.integer("head_dim", 2, kMaxHeadDim);
  } else if (config.model_type == "qwen3" && !object.has_key("head_dim")) {
    config.head_dim = 128;  // transformers' default for Qwen3
  } else {
    if (config.hidden_size % config.num_attention_heads != 0) {
      object.reject("hidden_size",
                    fmt::format("without head_dim it must be a multiple of num_attention_heads, {}",
                                config.num_attention_heads));
    }
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    fail("{}: head_dim is {}; an even number up to {} is needed", where, config.head_dim,
         kMaxHeadDim);
  }
  config.vocab_size = object.integer("vocab_size", 1, kMaxVocab);

  const int64_t positions = object.integer("max_position_embeddings", 1, kMaxPositions);
  config.max_position_embeddings =
      std::min(positions, window_limit(object, config.model_type, config.num_hidden_layers));
  config.rope = read_rope(object, config.head_dim, positions);

  config.rms_norm_eps = static_cast<float>(object.number("rms_norm_eps", 1e-30, 1.0, 1e-6));
  config.initializer_range = object.number("initializer_range", 0.0, 100.0, 0.02);
  config.tie_word_embeddings = object.boolean("tie_word_embeddings", false);
  config.qkv_bias = config.model_type == "qwen2";
  config.qk_norm = config.model_type == "qwen3";
  config.bos_token_id = object.integer("bos_token_id", 0, config.vocab_size - 1, -1);
  config.eos_token_ids = read_eos(object, config.vocab_size);
  return config;
}

ModelConfig load_model_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  if (!std::filesystem::exists(path)) {
    fail(
        "{} is missing; a Hugging Face model folder is needed (config.json, *.safetensors, "
        "tokenizer.json)",
        path.string());
  }
  ModelConfig config = parse_model_config(read_model_file(path), path.string());

  // As in transformers' generate(), the ids in generation_config.json, where given, are
  // the ones that count.
  const std::filesystem::path generation_path = folder / "generation_config.json";
  if (std::filesystem::exists(generation_path)) {
    const json parsed =
        parse_json_strictly(read_model_file(generation_path), generation_path.string());
    const JsonObject generation(parsed, generation_path.string());
    auto eos = read_eos(generation, config.vocab_size);
    if (!eos.empty()) config.eos_token_ids = std::move(eos);
    config.bos_token_id =
        generation.integer("bos_token_id", 0, config.vocab_size - 1, config.bos_token_id);
  }
  return config;
}

std::string model_config_json(const ModelConfig& config, const std::string& torch_dtype) {
  const Architecture* architecture = find_architecture(config.model_type);
  ORRERY_CHECK(architecture != nullptr, "model type {}", config.model_type);
  nlohmann::ordered_json out;
  out["architectures"] = {architecture->class_name};
  out["model_type"] = config.model_type;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["num_hidden_layers"] = config.num_hidden_layers;
  out["num_attention_heads"] = config.num_attention_heads;
  out["num_key_value_heads"] = config.num_key_value_heads;
  out["head_dim"] = config.head_dim;
  out["vocab_size"] = config.vocab_size;
  out["max_position_embeddings"] = config.max_position_embeddings;
  out["rms_norm_eps"] = shortest_decimal(config.rms_norm_eps);
  out["rope_theta"] = config.rope.theta;
  out["rope_scaling"] = rope_scaling_json(config.rope.scaling);
  out["hidden_act"] = "silu";
  if (config.model_type != "qwen2") out["attention_bias"] = false;
  if (config.model_type == "llama") out["mlp_bias"] = false;
  // max_position_embeddings is already limited to the window, inside which the window
  // changes nothing.
  if (config.model_type != "llama") out["sliding_window"] = nullptr;
  if (config.model_type.starts_with("qwen")) out["use_sliding_window"] = false;
  out["tie_word_embeddings"] = config.tie_word_embeddings;
  out["initializer_range"] = config.initializer_range;
  // Null where there is none: transformers has defaults for absent keys.
  out["bos_token_id"] =
      config.bos_token_id >= 0 ? nlohmann::ordered_json(config.bos_token_id) : nullptr;
  out["eos_token_id"] = nullptr;
  if (config.eos_token_ids.size() == 1) {
    out["eos_token_id"] = config.eos_token_ids[0];
  } else if (!config.eos_token_ids.empty()) {
    out["eos_token_id"] = config.eos_token_ids;
  }
  out["attention_dropout"] = 0.0;
  out["use_cache"] = true;
  out["torch_dtype"] = torch_dtype;
  return out.dump(2) + "\n";
}

}  // namespace orrery::models
