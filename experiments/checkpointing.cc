#include "experiments/checkpointing.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/timer.h"
#include "experiments/together.h"

namespace orrery {
namespace {

constexpr int kFormat = 1;

bool same_parameters(const ParameterTable& a, const ParameterTable& b) {
  return std::equal(a.parameters().begin(), a.parameters().end(), b.parameters().begin(),
                    b.parameters().end(), [](const Parameter& x, const Parameter& y) {
                      return x.name == y.name && x.shape == y.shape && x.offset == y.offset;
                    });
}

/// The lines "key: value" of a resolved config, by the path of keys that leads to them.
std::map<std::string, std::string> flat_yaml(const std::string& text) {
  std::istringstream in(text);
  std::map<std::string, std::string> values;
  std::vector<std::string> path;  // keys that lead to the current line, by indentation
  for (std::string line; std::getline(in, line);) {
    const size_t indent = line.find_first_not_of(' '), colon = line.find(':');
    if (indent == std::string::npos || colon == std::string::npos) continue;
    path.resize(std::min(path.size(), indent / 2));
    path.push_back(line.substr(indent, colon - indent));
    const size_t value = line.find_first_not_of(' ', colon + 1);
    if (value == std::string::npos) continue;
    values[fmt::format("{}", fmt::join(path, "."))] = line.substr(value);
  }
  return values;
}

}  // namespace

std::string state_to_json(const TrainState& state) {
  nlohmann::json json = {{"format", kFormat},
                         {"sft_step", state.sft_step},
                         {"rl_step", state.rl_step},
                         {"adam_t", state.adam_t},
                         {"reward", state.reward}};
  if (state.val_before) json["val_before"] = *state.val_before;
  if (state.val_after) json["val_after"] = *state.val_after;
  return json.dump();
}

TrainState state_from_json(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    if (json.empty()) return {};  // an imported model: step 0
    if (json.at("format") != kFormat) {
      fail("the checkpoint's state has format {}, this program reads {}", json.at("format").dump(), kFormat);
    }
    TrainState state;
    state.sft_step = json.at("sft_step");
    state.rl_step = json.at("rl_step");
    state.adam_t = json.at("adam_t");
    state.reward = json.at("reward");
    if (json.contains("val_before")) state.val_before = json.at("val_before").get<double>();
    if (json.contains("val_after")) state.val_after = json.at("val_after").get<double>();
    return state;
  } catch (const nlohmann::json::exception& error) {
    fail("the checkpoint's state is not what a training run writes: {}", error.what());
  }
}

Checkpointer::Checkpointer(Job& job, std::string config_yaml)
    : job_(job), config_yaml_(std::move(config_yaml)), folder_(job.run_dir / "checkpoints") {}

double Checkpointer::save(const TrainState& state, Learner* learner, bool must) {
  if (learner == nullptr) return 0;
  const Timer timer;
  settle(/*must=*/false);
  ShardedAdamW& optimizer = learner->optimizer();
  if (!writer_) {
    writer_ = std::make_unique<CheckpointWriter>(
        *job_.learners, CheckpointWriter::Target{folder_,
                                                 job_.config.model().path(),
                                                 job_.model().table(),
                                                 {optimizer.extents().begin(), optimizer.extents().end()},
                                                 job_.config.trainer().max_ckpt_to_keep()});
  }
  CheckpointInfo info;
  info.step = state.step();
  info.stage = state.rl_step > 0 ? "grpo" : "sft";
  info.run_config_yaml = config_yaml_;
  info.model_config_json = model_config_json(job_.model().config(), "float32");
  info.state_json = state_to_json(state);
  if (state.rl_step > 0) info.reward = state.reward;
  saving_step_ = state.step();
  writer_->start(job_.ctx, info, {job_.model().parameters(), optimizer.m(), optimizer.v()});
  if (must) settle(must);
  return timer.seconds();
}

void Checkpointer::settle(bool must) {
  if (!writer_ || !writer_->busy()) return;
  try {
    background_seconds_ = writer_->wait();
  } catch (const AgreedError& error) {
    if (must)
      throw AgreedError(fmt::format("checkpoint of step {} was not saved: {}", saving_step_, error.what()),
                        error.exit_code());
    if (job_.learners->rank() == 0) {
      spdlog::error("checkpoint of step {} was not saved, earlier ones are whole, training goes on: {}",
                    saving_step_, error.what());
    }
  }
}

void Checkpointer::finish() { settle(/*must=*/true); }

std::optional<double> Checkpointer::poll() {
  if (writer_ && writer_->done()) settle(/*must=*/false);
  return std::exchange(background_seconds_, std::nullopt);
}

std::filesystem::path Checkpointer::choose() const {
  const std::string& resume = job_.config.trainer().resume();
  if (resume == "off") {
    if (!list_checkpoints(folder_).empty()) {
      fail_usage(
          "trainer.resume is off but {} holds checkpoints; choose another run_dir, remove them, or resume: "
          "auto",
          folder_.string());
    }
    return {};
  }
  std::filesystem::path from = folder_;
  if (resume != "auto" && !list_checkpoints(folder_).empty()) {
    // A run that began from PATH goes on with its own checkpoints; those of another run would outlive PATH's
    // steps.
    const std::filesystem::path saved = job_.run_dir / "config.yaml";
    const std::string before =
        std::filesystem::exists(saved) ? flat_yaml(read_file(saved))["trainer.resume"] : std::string();
    if (before != flat_yaml(config_yaml_)["trainer.resume"]) {
      fail_usage(
          "trainer.resume is {} but {} holds checkpoints of a run that began otherwise; choose another "
          "run_dir, "
          "remove them, or resume: auto to go on from them",
          resume, folder_.string());
    }
    spdlog::info("the run that began from {} goes on from its own checkpoints", resume);
  } else if (resume != "auto") {
    if (!std::filesystem::is_directory(resume)) {
      fail_usage("trainer.resume: {} is not a folder; give auto, off, a checkpoint or a run folder", resume);
    }
    from = std::filesystem::path(resume) / "checkpoints";
    if (!std::filesystem::is_directory(from)) return resume;  // a checkpoint, else of another run
  }
  const auto found =
      latest_good_checkpoint(from, [](const std::filesystem::path& folder, const std::string& reason) {
        spdlog::error("checkpoint {} is damaged and passed over: {}", folder.string(), reason);
      });
  if (!found && resume != "auto") fail("trainer.resume: {} holds no whole checkpoint", from.string());
  return found ? found->folder() : std::filesystem::path{};
}

void Checkpointer::report_changes(const std::string& saved_yaml) const {
  const auto before = flat_yaml(saved_yaml), after = flat_yaml(config_yaml_);
  std::string changes;
  for (const auto& [key, value] : after) {
    const auto it = before.find(key);
    if (key == "run_dir" || key.starts_with("cluster.") || it == before.end() || it->second == value)
      continue;
    changes += fmt::format("{}{}: {} -> {}", changes.empty() ? "" : ", ", key, it->second, value);
  }
  if (!changes.empty()) {
    spdlog::warn("the config differs from the one that was saved; the run goes on with the new values: {}",
                 changes);
  }
}

std::optional<TrainState> Checkpointer::resume(Learner* learner) {
  Communicator& world = job_.world;
  std::filesystem::path chosen;
  together(world, [&] {
    if (world.rank() == 0) chosen = choose();
  });
  chosen = world.all_gather_bytes(chosen.string()).front();
  if (chosen.empty()) return std::nullopt;

  TrainState state;
  together(world, [&] {
    // Rank 0 has verified every file when it chose; the others hash what they read.
    const Checkpoint checkpoint(chosen, Checkpoint::Verify::kOnRead);
    Transformer& model = job_.model();
    if (!same_parameters(checkpoint.table(), model.table())) {
      fail("{} is of another model than model.path {}; use another run_dir or trainer.resume: off",
           chosen.string(), job_.config.model().path());
    }
    state = state_from_json(checkpoint.info().state_json);
    if (state.rl_step > 0 && state.sft_step < job_.config.sft().total_training_steps()) {
      fail_usage(
          "{} is past SFT, which took {} steps; sft.total_training_steps is {} now: set it back, or use "
          "another run_dir",
          chosen.string(), state.sft_step, job_.config.sft().total_training_steps());
    }
    if (world.rank() == 0) report_changes(checkpoint.info().run_config_yaml);
    checkpoint.read(0, checkpoint.flat_size(), model.parameters(), {}, {});
    if (learner != nullptr) {
      ShardedAdamW& optimizer = learner->optimizer();
      int64_t at = 0;
      for (const Extent& e : optimizer.extents()) {
        const Extent moments{at, at + e.size()};
        checkpoint.read(e.begin, e.end, {}, part_of(optimizer.m(), moments), part_of(optimizer.v(), moments));
        at = moments.end;
      }
      optimizer.set_t(state.adam_t);
    }
    model.pack(job_.ctx);
  });
  if (world.rank() == 0) spdlog::info("resumed from {} (step {})", chosen.string(), state.step());
  return state;
}

}  // namespace orrery
