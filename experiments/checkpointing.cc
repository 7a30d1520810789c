#include "experiments/checkpointing.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "config/config.h"
#include "config/config_values.h"
#include "core/error.h"
#include "core/file.h"
#include "core/host_image.h"
#include "core/log.h"
#include "core/timer.h"
#include "experiments/agreement.h"
#include "experiments/divergence.h"
#include "experiments/on_all_ranks.h"
#include "experiments/resume_check.h"
#include "kernels/reductions.h"
#include "rollout/fingerprint.h"

namespace orrery::experiments {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReasons = 3;  // of refused checkpoints, in one line

/// What this rank computes in, where it learns.
std::string learner_numerics(const Job& job) {
  return rollout::fingerprint_text(
      rollout::fingerprint_of(job.ctx.device, config::compute_dtype(job.config)));
}

double largest(const Context& ctx, Vec<const float> values) {
  return kernels::max_abs(ctx, {.x = values});
}

}  // namespace

fs::path newest_usable_checkpoint(const fs::path& folder, const std::string& advice) {
  std::vector<std::pair<fs::path, std::string>> refused;  // newest first
  const auto found = storage::latest_good_checkpoint(
      folder,
      [&](const fs::path& path, const std::string& reason) { refused.emplace_back(path, reason); });
  if (!found && !refused.empty()) {
    std::string reasons;
    for (size_t i = 0; i < std::min(refused.size(), kReasons); ++i) {
      reasons += fmt::format("{}{}: {}", i == 0 ? "" : "; ", refused[i].first.filename().string(),
                             refused[i].second);
    }
    if (refused.size() > kReasons) reasons += "; and so on";
    fail_usage("none of the {} checkpoint(s) in {} can be used: {}; {}", refused.size(),
               folder.string(), reasons, advice);
  }
  for (const auto& [path, reason] : refused) {
    spdlog::error("checkpoint {} cannot be used and is passed over: {}", path.string(), reason);
  }
  return found ? found->folder() : fs::path{};
}

bool same_parameters(const models::ParameterTable& a, const models::ParameterTable& b) {
  return std::equal(a.parameters().begin(), a.parameters().end(), b.parameters().begin(),
                    b.parameters().end(),
                    [](const models::Parameter& x, const models::Parameter& y) {
                      return x.name == y.name && x.shape == y.shape;
                    });
}

void refuse_other_modules(const fs::path& path, std::span<const storage::StoredModule> modules,
                          std::span<const std::string> of_job) {
  for (const storage::StoredModule& module : modules) {
    if (std::find(of_job.begin(), of_job.end(), module.name) != of_job.end()) continue;
    fail_usage(
        "{} has the module {}, which this job does not have and would drop; "
        "go on with the program and configuration that saved it, "
        "or begin a new run from its policy alone: "
        "orrery ckpt export {} MODEL, then model.path=MODEL",
        path.string(), module.name, path.string());
  }
}

Checkpointer::Checkpointer(Job& job, std::string config_yaml)
    : job_(job), config_yaml_(std::move(config_yaml)), folder_(job.run_dir / "checkpoints") {}

void Checkpointer::prepare(learners::Learner* learner) {
  if (learner == nullptr || writer_) return;
  const learners::ShardedAdamW& optimizer = learner->optimizer();
  CheckpointWriter::Target target{
      folder_,
      job_.config.model().path(),
      {{job_.model().table(), {optimizer.extents().begin(), optimizer.extents().end()}}},
      job_.config.trainer().max_ckpt_to_keep(),
      job_.config.model().has_chat_template_file() ? job_.tokenizer.chat_template()
                                                   : std::string()};
  writer_ = std::make_unique<CheckpointWriter>(*job_.learners, std::move(target));
}

double Checkpointer::save(const storage::TrainState& state, learners::Learner* learner, bool must) {
  if (learner == nullptr) return 0;
  const Timer timer;
  wait_for_save(/*must=*/false);
  prepare(learner);
  learners::ShardedAdamW& optimizer = learner->optimizer();
  storage::CheckpointInfo info;
  info.step = state.step();
  info.stage = state.stage();
  info.run_config_yaml = config_yaml_;
  info.model_config_json = models::model_config_json(job_.model().config(), "float32");
  info.state = state;
  info.inputs = job_.inputs;
  info.numerics = learner_numerics(job_);
  info.device = device_name(job_.ctx.device);
  if (state.rl_step > 0) info.reward = state.reward;
  saving_step_ = state.step();
  const CheckpointWriter::Values policy{
      .weights = job_.model().parameters(), .adam_m = optimizer.m(), .adam_v = optimizer.v()};
  writer_->start(job_.ctx, info, {&policy, 1});
  if (must) wait_for_save(must);
  return timer.seconds();
}

void Checkpointer::wait_for_save(bool must) {
  if (!writer_ || !writer_->busy()) return;
  try {
    // A save may end before the line that tells of the one before is written.
    background_seconds_ = std::max(background_seconds_.value_or(0), writer_->wait());
    saved_step_ = saving_step_;
  } catch (const AgreedError& error) {
    if (must)
      throw AgreedError(
          fmt::format("checkpoint of step {} was not saved: {}", saving_step_, error.what()),
          error.exit_code());
    if (job_.learners->rank() == 0) {
      spdlog::error(
          "checkpoint of step {} was not saved, earlier ones are whole, training goes on: {}",
          saving_step_, error.what());
    }
  }
}

bool Checkpointer::has(int64_t step) {
  wait_for_save(/*must=*/false);
  return saved_step_ == step;
}

void Checkpointer::finish(bool must) { wait_for_save(must); }

std::optional<double> Checkpointer::poll() {
  if (writer_ && writer_->done()) wait_for_save(/*must=*/false);
  return std::exchange(background_seconds_, std::nullopt);
}

fs::path Checkpointer::choose(std::vector<std::string>& news) const {
  const std::string& resume = job_.config.trainer().resume();
  const bool has_own = !storage::list_checkpoints(folder_).empty();
  if (!has_own) check_run_folder(job_.run_dir.string(), config_yaml_);
  if (resume == "off") {
    if (has_own) {
      fail_usage(
          "trainer.resume is off but {} holds checkpoints; "
          "choose another run_dir, remove the whole folder {}, "
          "or set trainer.resume=auto to go on with the run there, if it is this experiment",
          folder_.string(), job_.run_dir.string());
    }
    return {};
  }
  fs::path from = folder_;
  if (resume != "auto" && has_own) {
    // A run that began from PATH goes on with its own checkpoints; those of another run
    // would outlive PATH's steps.
    const fs::path saved = job_.run_dir / "config.yaml";
    const std::string before = fs::exists(saved)
                                   ? config::config_values(read_file(saved))["trainer.resume"]
                                   : std::string();
    if (before != config::config_values(config_yaml_)["trainer.resume"]) {
      fail_usage(
          "trainer.resume is {} but {} holds checkpoints of a run that began otherwise; "
          "choose another run_dir, remove the whole folder {}, "
          "or set trainer.resume=auto to go on with the run there, if it is this experiment",
          resume, folder_.string(), job_.run_dir.string());
    }
    news.push_back(
        fmt::format("the run that began from {} goes on from its own checkpoints", resume));
  } else if (resume != "auto") {
    std::error_code error;
    if (!fs::is_directory(resume, error)) {
      fail_usage(
          "trainer.resume: '{}' is not a folder; give auto, off, a checkpoint or a run folder",
          resume);
    }
    from = fs::path(resume) / "checkpoints";
    if (!fs::is_directory(from)) return resume;  // a checkpoint, else of another run
  }
  const bool own = from == folder_;
  fs::path found = newest_usable_checkpoint(
      from,
      own ? "training would overwrite them: move the whole folder away, or give another run_dir"
          : "give another trainer.resume");
  if (found.empty() && !own) fail_usage("trainer.resume: {} holds no checkpoint", from.string());
  return found;
}

Checkpointer::Resumed Checkpointer::resume(learners::Learner* learner) {
  comm::Communicator& world = job_.world;
  Resumed resumed;
  storage::TrainState& state = resumed.state;
  const double initial = largest(job_.ctx, std::as_const(job_.model()).parameters());
  fs::path chosen;
  on_all_ranks(world, [&] {
    if (world.rank() == 0) chosen = choose(resumed.news);
  });
  chosen = world.all_gather_bytes(chosen.string()).front();
  if (chosen.empty()) {
    resumed.from_step_0 = true;
    state.start_largest = initial;
    return resumed;
  }
  agree_on_checkpoint(world, chosen);
  // Rank 0 learns; an actor may be on a device of another class.
  const std::string numerics = world.all_gather_bytes(learner_numerics(job_)).front();
  on_all_ranks(world, [&] { load(chosen, numerics, initial, learner, resumed); });
  resumed.news.push_back(
      fmt::format("resumed from {} at {}", chosen.string(), storage::step_text(state)));
  return resumed;
}

void Checkpointer::load(const fs::path& chosen, const std::string& numerics, double initial,
                        learners::Learner* learner, Resumed& resumed) {
  // Rank 0 has verified every file when it chose; the others hash what they read.
  const storage::Checkpoint checkpoint(chosen, storage::Checkpoint::Verify::kOnRead);
  const bool own = chosen.parent_path() == folder_;
  const std::string policy = models::kPolicy.name;
  refuse_other_modules(chosen, checkpoint.modules(), {&policy, 1});
  models::Transformer& model = job_.model();
  if (!same_parameters(checkpoint.table(), model.table())) {
    fail_usage("{} is of another model than model.path {}; set model.path back, or {}",
               chosen.string(), job_.config.model().path(),
               own ? "use another run_dir" : "give another trainer.resume");
  }
  storage::TrainState& state = resumed.state;
  const bool imported = !checkpoint.info().state;  // a model, of step 0
  state = checkpoint.info().state.value_or(storage::TrainState{});
  const ResumeDecision answer =
      check_resume({checkpoint.info(), chosen.string(), own, job_.config, config_yaml_, job_.inputs,
                    models::model_config_json(checkpoint.config(), "") ==
                        models::model_config_json(model.config(), ""),
                    numerics});
  if (!answer.keep_scores) state.val_before = state.val_after = std::nullopt;
  resumed.older_program = answer.older_program;
  resumed.warnings = answer.warnings;
  if (own && !imported && !answer.older_program) saved_step_ = state.step();
  HostImage weights(job_.ctx, model.write_parameters());
  checkpoint.read(models::kPolicy.name, model.table().slices(), weights.values());
  weights.commit();
  const double weight = largest(job_.ctx, std::as_const(model).parameters());
  if (imported) state.start_largest = weight;
  const double moment = learner != nullptr ? load_moments(checkpoint, state.adam_t, *learner) : 0;
  // An older checkpoint does not say what its stage began with: SFT began with the
  // model's own weights.
  const double limit = state.start_largest
                           ? largest_sound_weight(*state.start_largest, state.adam_t)
                           : largest_sound_weight(initial, state.sft_step + state.adam_t);
  const std::string problem = state_problem(weight, moment, limit);
  if (!problem.empty()) {
    fail_usage(
        "{}: the policy had diverged when it was saved: {}; "
        "remove it, so that an earlier one is taken, "
        "or name one with trainer.resume in another run_dir",
        chosen.string(), problem);
  }
  if (!state.start_largest) state.start_largest = std::max(initial, weight);
  model.pack(job_.ctx);
}

double Checkpointer::load_moments(const storage::Checkpoint& checkpoint, int64_t adam_t,
                                  learners::Learner& learner) const {
  learners::ShardedAdamW& optimizer = learner.optimizer();
  HostImage m(job_.ctx, optimizer.m()), v(job_.ctx, optimizer.v());
  checkpoint.read(models::kPolicy.name, job_.model().table().slices(optimizer.extents()), {},
                  m.values(), v.values());
  m.commit();
  v.commit();
  optimizer.set_t(adam_t);
  return std::max(largest(job_.ctx, optimizer.m()), largest(job_.ctx, optimizer.v()));
}

}  // namespace orrery::experiments
