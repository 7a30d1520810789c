#include "config/config.h"

#include <algorithm>
#include <cstdlib>

#include "config/config_effect.h"
#include "config/yaml_document.h"
#include "config/yaml_to_proto.h"
#include "core/device.h"
#include "core/error.h"
#include "core/file.h"

namespace orrery::config {
namespace {

/// Replaces ${NAME} and a leading ~/.
std::string expand(const std::string& path, const std::string& key, const std::string& where) {
  std::string out;
  size_t at = 0;
  if (path == "~" || path.starts_with("~/")) {
    const char* home = std::getenv("HOME");
    if (home == nullptr)
      fail_usage("{}: {} is '{}' but the environment has no HOME", where, key, path);
    out = home;
    at = 1;
  }
  for (;;) {
    const size_t open = path.find("${", at);
    if (open == std::string::npos) return out + path.substr(at);
    const size_t close = path.find('}', open);
    if (close == std::string::npos)
      fail_usage("{}: {} is '{}': its ${{ is not closed", where, key, path);
    const std::string name = path.substr(open + 2, close - open - 2);
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) {
      fail_usage("{}: {} is '{}' but the environment variable {} is not set", where, key, path,
                 name);
    }
    out += path.substr(at, open - at) + value;
    at = close + 1;
  }
}

/// Returns runs/NAME, for a run that names no folder.
std::string default_run_dir(const std::string& name) {
  const std::filesystem::path relative(name);
  const bool inside = relative.is_relative() &&
                      std::none_of(relative.begin(), relative.end(),
                                   [](const auto& part) { return part == ".." || part == "."; });
  // ${NAME} would be expanded when the resolved config is read again.
  if (!inside || name.find("${") != std::string::npos) {
    fail_usage(
        "experiment_name is '{}', which cannot be a folder's name in runs/: "
        "give run_dir, or another name",
        name);
  }
  return (std::filesystem::path("runs") / relative).string();
}

/// Turns the paths that were written into the paths that readers open.
class PathResolver {
 public:
  PathResolver(const ConfigReader& reader, const std::filesystem::path& config)
      : reader_(reader), folder_(std::filesystem::absolute(config).parent_path()) {}

  std::string expanded(const std::string& path, const std::string& key) const {
    return expand(path, key, reader_.source(key));
  }

  std::string resolved(const std::string& path, const std::string& key) const {
    if (path.empty()) fail_usage("{}: {} is an empty path", reader_.source(key), key);
    const std::filesystem::path given = expanded(path, key);
    if (given.is_absolute()) return given.lexically_normal().string();
    const bool typed = reader_.source(key) == ConfigReader::kCommandLine;
    return ((typed ? std::filesystem::current_path() : folder_) / given)
        .lexically_normal()
        .string();
  }

  void resolve(google::protobuf::RepeatedPtrField<std::string>& paths,
               const std::string& key) const {
    for (std::string& path : paths) path = resolved(path, key);
  }

 private:
  const ConfigReader& reader_;
  std::filesystem::path folder_;
};

/// Reads data.prompt_template from data.prompt_template_file, whose path is not kept.
/// The resolved config has the text itself, so a later change of the file does not
/// change what a run was given.
void read_prompt_template(proto::Config& config, const ConfigReader& reader,
                          const PathResolver& resolver) {
  constexpr const char *kText = "data.prompt_template", *kFile = "data.prompt_template_file";
  if (!config.data().has_prompt_template_file()) return;
  proto::DataSection& data = *config.mutable_data();
  if (data.has_prompt_template()) {
    // An override replaces what the file says, by whichever of the two keys.
    const bool text_typed = reader.source(kText) == ConfigReader::kCommandLine;
    const bool file_typed = reader.source(kFile) == ConfigReader::kCommandLine;
    if (text_typed && !file_typed) return data.clear_prompt_template_file();
    if (text_typed == file_typed && data.prompt_template() != "{}") {
      fail_usage("{}: {} is set, and {} at {} says the same in another way: leave one of them out",
                 reader.source(kFile), kFile, kText, reader.source(kText));
    }
  }
  const std::string file = resolver.resolved(data.prompt_template_file(), kFile);
  const std::string where = fmt::format("{}: {}: {}", reader.source(kFile), kFile, file);
  if (!std::filesystem::is_regular_file(file)) {
    fail_usage("{}: {}; give the text file of a prompt template", where,
               std::filesystem::exists(file) ? "not a file" : "there is no such file");
  }
  if (std::filesystem::file_size(file) > kMaxConfigText) {
    fail_usage("{}: {} bytes are too many for a prompt template (at most {})", where,
               std::filesystem::file_size(file), kMaxConfigText);
  }
  std::string text = read_file(file);
  check_config_text(text, where);
  // The new line at the end comes from an editor and is not part of the prompt.
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  data.set_prompt_template(text);
  data.clear_prompt_template_file();
}

/// A key whose default is another loss's.
struct NeededKey {
  proto::ActorSection::LossMode mode;
  const char *key, *why;
};
using Actor = proto::ActorSection;
constexpr NeededKey kNeededKeys[] = {
    {Actor::GSPO, "actor.clip_ratio_low",
     "gspo, whose ratio is a whole response's and so near 1 that actor.clip_ratio_low's default "
     "would never clip: set it (the paper: 3e-4)"},
    {Actor::GSPO, "actor.clip_ratio_high",
     "gspo, whose ratio is a whole response's and so near 1 that actor.clip_ratio_high's default "
     "would never clip: set it (the paper: 4e-4)"},
    {Actor::DPPO_TV, "actor.clip_ratio_low",
     "dppo-tv, whose actor.clip_ratio_low is no ratio but how far a probability may fall: set it"},
    {Actor::DPPO_TV, "actor.clip_ratio_high",
     "dppo-tv, whose actor.clip_ratio_high is no ratio but how far a probability may rise: set it"},
    {Actor::DPPO_TV, "actor.clip_ratio_c",
     "dppo-tv, whose actor.clip_ratio_c is the greatest ratio, not a dual clip: "
     "set it (the paper: 20; 0: none)"},
    {Actor::DPPO_KL, "actor.clip_ratio_low",
     "dppo-kl, whose actor.clip_ratio_low is no ratio but a KL divergence: set it"},
    {Actor::DPPO_KL, "actor.clip_ratio_high",
     "dppo-kl, whose actor.clip_ratio_high is no ratio but a KL divergence: set it"},
    {Actor::DPPO_KL, "actor.clip_ratio_c",
     "dppo-kl, whose actor.clip_ratio_c is the greatest ratio, not a dual clip: "
     "set it (the paper: 20; 0: none)"},
};

/// A usage Error where a loss is not given a key whose default is another loss's.
void check_needed_keys(const proto::Config& config, const ConfigReader& reader) {
  for (const NeededKey& needed : kNeededKeys) {
    if (config.actor().loss_mode() != needed.mode || !reader.source(needed.key).empty()) continue;
    fail_usage("{}: actor.loss_mode is {}", reader.source("actor.loss_mode"), needed.why);
  }
}

}  // namespace

proto::Config load_config(const std::filesystem::path& path,
                          std::span<const std::string> overrides) {
  std::error_code code;
  const auto status = std::filesystem::status(path, code);
  if (!std::filesystem::exists(status))
    fail_usage("{}: there is no such config file", path.string());
  if (!std::filesystem::is_regular_file(status))
    fail_usage("{}: not a file; give the path of a YAML config", path.string());

  proto::Config config;
  ConfigReader reader(config);
  reader.read_yaml(read_file(path), path.string());
  for (const std::string& assignment : overrides) reader.read_override(assignment);
  const PathResolver resolver(reader, path);
  read_prompt_template(config, reader, resolver);
  // actor.optim has a message of the same type, whose default is for a policy gradient.
  if (!config.sft().optim().has_lr())
    config.mutable_sft()->mutable_optim()->set_lr(kSftLearningRate);
  fill_defaults(config);

  config.set_run_dir(config.has_run_dir() ? resolver.expanded(config.run_dir(), "run_dir")
                                          : default_run_dir(config.experiment_name()));
  if (config.model().has_path())
    config.mutable_model()->set_path(resolver.resolved(config.model().path(), "model.path"));
  if (config.model().has_chat_template_file()) {
    config.mutable_model()->set_chat_template_file(
        resolver.resolved(config.model().chat_template_file(), "model.chat_template_file"));
  }
  resolver.resolve(*config.mutable_data()->mutable_train_files(), "data.train_files");
  resolver.resolve(*config.mutable_data()->mutable_val_files(), "data.val_files");
  resolver.resolve(*config.mutable_sft()->mutable_text_files(), "sft.text_files");
  resolver.resolve(*config.mutable_sft()->mutable_train_files(), "sft.train_files");
  resolver.resolve(*config.mutable_sft()->mutable_val_files(), "sft.val_files");
  const std::string& resume = config.trainer().resume();
  if (resume != "auto" && resume != "off") {
    config.mutable_trainer()->set_resume(resolver.resolved(resume, "trainer.resume"));
  }
  check_effect(config, reader);
  check_needed_keys(config, reader);
  return config;
}

std::string config_to_yaml(const proto::Config& config) { return proto_to_yaml(config); }

Device device(const proto::Config& config, LocalRank local) {
  return device_from_name("device", config.device(), local);
}

Device rollout_device(const proto::Config& config, LocalRank local) {
  const std::string& name = config.rollout().device();
  return name == kSameDevice ? device(config, local)
                             : device_from_name("rollout.device", name, local, kSameDevice);
}

bool same_numerics(const proto::Config& config) {
  const DType dtype = compute_dtype(config);
  if (rollout_compute_dtype(config) != dtype) return false;
  return dtype == DType::kF32 || rollout_device(config).dot16() == device(config).dot16();
}

DType compute_dtype(const proto::Config& config) {
  return config.model().compute_dtype() == proto::ModelSection::BF16 ? DType::kBF16 : DType::kF32;
}

DType rollout_compute_dtype(const proto::Config& config) {
  switch (config.rollout().compute_dtype()) {
    case proto::RolloutSection::F32:
      return DType::kF32;
    case proto::RolloutSection::BF16:
      return DType::kBF16;
    case proto::RolloutSection::SAME:
      break;
  }
  return compute_dtype(config);
}

}  // namespace orrery::config
