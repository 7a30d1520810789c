// `orrery ckpt export | import`.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "storage/checkpoint.h"
#include "storage/hf_folder.h"
#include "storage/new_folder.h"
#include "tools/ckpt_actions.h"

namespace orrery::tools {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

DType dtype_of(const std::string& name) {
  return name == "f32" ? DType::kF32 : name == "bf16" ? DType::kBF16 : DType::kF16;
}

}  // namespace

void ckpt_export(const CkptOptions& options) {
  const storage::Checkpoint c = open_good(options.path);
  std::vector<float> weights(c.table().flat_size());
  c.read(models::kPolicy.name, c.table().slices(), weights);
  storage::save_hf_folder(options.other, c.config(), c.table(), weights, dtype_of(options.dtype),
                          c.tokenizer_folder());
  const bool tokenizer = !c.tokenizer_folder().empty();
  if (options.json) {
    fmt::print("{}\n", ordered_json({{"path", options.other},
                                     {"from", c.folder().string()},
                                     {"step", c.info().step},
                                     {"dtype", options.dtype},
                                     {"tokenizer", tokenizer}})
                           .dump());
  } else {
    fmt::print("{}: Hugging Face folder of {}, step {}, {}{}\n", options.other, c.folder().string(),
               c.info().step, options.dtype,
               tokenizer ? "" : "; the checkpoint holds no tokenizer, so neither does the folder");
  }
}

void ckpt_import(const CkptOptions& options) {
  const fs::path source = options.path, given = options.other;
  const fs::path target = (given.has_filename() ? given : given.parent_path()).lexically_normal();
  if (fs::exists(target)) fail_usage("{} exists; name a new checkpoint folder", target.string());
  const std::string name = target.filename().string();
  if (name.starts_with("step_") && name != storage::checkpoint_name(0)) {
    fail_usage("{}: an imported checkpoint is of step 0; name it {}", target.string(),
               storage::checkpoint_name(0));
  }
  const models::ModelConfig config = models::load_model_config(source);
  const models::ParameterTable table(config);
  const size_t size = table.flat_size();
  std::vector<float> weights(size);
  storage::load_hf_weights({}, source, config, table, weights);
  const std::vector<float> zeros(size);

  storage::CheckpointInfo info;
  info.stage = storage::kImportStage;
  info.model_config_json = models::model_config_json(config, "float32");
  storage::NewFolder made(target);
  const storage::ModulePart all{storage::stored_module(table), table.slices(), weights, zeros,
                                zeros};
  const auto entry = storage::write_checkpoint_part(made.temporary(), 0, 1, {&all, 1});
  storage::complete_checkpoint(made.temporary(), info, {&all.module, 1}, {entry}, source);
  made.publish();
  if (options.json) {
    fmt::print("{}\n", ordered_json({{"path", target.string()},
                                     {"from", source.string()},
                                     {"parameters", table.parameter_count()}})
                           .dump());
  } else {
    fmt::print("{}: step 0 of {}, {} parameters, zero moments\n", target.string(), source.string(),
               table.parameter_count());
  }
}

}  // namespace orrery::tools
