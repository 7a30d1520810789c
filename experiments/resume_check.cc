#include "experiments/resume_check.h"

#include <algorithm>
#include <filesystem>
#include <iterator>

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/file.h"
#include "experiments/inputs.h"
#include "experiments/resume_rules.h"

namespace orrery::experiments {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSftSteps = "sft.total_training_steps";
constexpr const char* kRlSteps = "trainer.total_training_steps";
constexpr const char* kSftValFiles = "sft.val_files";

/// What else helps. With trainer.resume=PATH another run_dir would not, as the run
/// would begin from the same checkpoint.
const char* another(const ResumeRequest& request) {
  return request.own ? "use another run_dir" : "give another trainer.resume";
}

/// Refuses totals that the checkpoint has already passed, whatever else has changed.
void check_steps(const ResumeRequest& request, const storage::TrainState& state) {
  const int64_t sft_total = request.config.sft().total_training_steps();
  const int64_t rl_total = request.config.trainer().total_training_steps();
  if (state.rl_step > 0 && state.sft_step < sft_total) {
    fail_usage(
        "{} is past SFT, which took {} steps; sft.total_training_steps is {} now: "
        "set it back, or {}",
        request.checkpoint, state.sft_step, sft_total, another(request));
  }
  if (state.rl_step > rl_total) {
    fail_usage(
        "{} is at RL step {} and trainer.total_training_steps is {}: "
        "raise it to go on from there, or {}",
        request.checkpoint, state.rl_step, rl_total, another(request));
  }
}

bool sft_is_over(const ResumeRequest& request, const storage::TrainState& state) {
  return state.rl_step > 0 || state.sft_step >= request.config.sft().total_training_steps();
}

/// Whether a change is one to another experiment. What a stage that is over has learned
/// from cannot change any more.
bool is_fixed(const ResumeRequest& request, const storage::TrainState& state,
              const ConfigChange& change) {
  if (change.rule == ResumeRule::kFixed) return true;
  if (!change.key.starts_with("sft.")) return false;
  if (change.key == kSftSteps)
    return state.rl_step > 0 || state.sft_step > request.config.sft().total_training_steps();
  return sft_is_over(request, state);
}

/// Whether a change is only that of a default in an older version of the program, and
/// has no effect. It must not be an error.
bool is_unused_default(const ResumeRequest& request, const storage::TrainState& state,
                       const ConfigChange& change) {
  return change.key == "sft.optim.lr" && change.before == "1e-06" && change.after == "1e-05" &&
         sft_is_over(request, state);
}

/// Takes what SFT's loss is measured on out of the inputs. Returns how it differs,
/// unless SFT is over.
std::vector<std::string> measured_changes(const ResumeRequest& request,
                                          const storage::TrainState& state,
                                          std::vector<storage::InputDigest>& before,
                                          std::vector<storage::InputDigest>& after) {
  const auto take = [](std::vector<storage::InputDigest>& inputs) {
    std::vector<storage::InputDigest> taken;
    std::copy_if(inputs.begin(), inputs.end(), std::back_inserter(taken),
                 [](const storage::InputDigest& input) { return input.key == kSftValFiles; });
    std::erase_if(inputs,
                  [](const storage::InputDigest& input) { return input.key == kSftValFiles; });
    return taken;
  };
  const std::vector<storage::InputDigest> was = take(before), is = take(after);
  return sft_is_over(request, state) ? std::vector<std::string>() : input_changes(was, is);
}

/// Takes what SFT has learned from out of the inputs if SFT is over and its files are
/// gone, which is allowed.
void drop_unneeded_texts(const ResumeRequest& request, const storage::TrainState& state,
                         std::vector<storage::InputDigest>& before,
                         std::vector<storage::InputDigest>& after) {
  const auto is_text = [](const storage::InputDigest& input) {
    return input.key.starts_with("sft.");
  };
  const bool gone = std::any_of(after.begin(), after.end(), [&](const storage::InputDigest& input) {
    return is_text(input) && !is_readable(input);
  });
  if (!gone || state.sft_step < request.config.sft().total_training_steps()) return;
  std::erase_if(before, is_text);
  std::erase_if(after, is_text);
}

bool nothing_left(const ResumeRequest& request, const storage::TrainState& state) {
  return state.sft_step >= request.config.sft().total_training_steps() &&
         state.rl_step >= request.config.trainer().total_training_steps();
}

/// Says, with a clause for each, which words of the config mean something else than
/// they did to a program that did not record inputs.
std::string changed_definitions(const proto::Config& config) {
  std::string text;
  const bool rl = config.trainer().total_training_steps() > 0;
  if (rl &&
      config.algorithm().adv_estimator() == proto::AlgorithmSection::REINFORCE_PLUS_PLUS_BASELINE)
    text += "; reinforce-plus-plus-baseline whitens over loss tokens now, it was over samples";
  if (rl && config.data().env() == proto::DataSection::GSM8K)
    text +=
        "; the gsm8k environment reads and compares answers by other rules now, "
        "so that rewards differ";
  return text;
}

/// How the config has changed, by what the changes mean.
struct Changes {
  std::vector<ConfigChange> fixed, told, paths;
  bool measure = false;      ///< some change how held-out scores are taken
  bool lengths_only = true;  ///< all of `told` change only how many steps there are
};

Changes find_changes(const ResumeRequest& request, const storage::TrainState& state) {
  Changes changes;
  for (const ConfigChange& change :
       config_changes(request.saved.run_config_yaml, request.config_yaml)) {
    if (change.key == kSftValFiles || is_unused_default(request, state, change)) continue;
    if (change.rule == ResumeRule::kMeasure) changes.measure = true;
    if (change.rule == ResumeRule::kContent) {
      changes.paths.push_back(change);
    } else if (is_fixed(request, state, change)) {
      changes.fixed.push_back(change);
    } else {
      changes.told.push_back(change);
      if (change.key != kSftSteps && change.key != kRlSteps) changes.lengths_only = false;
    }
  }
  return changes;
}

/// "f32-chain" of "f32-chain/1".
std::string_view class_of(std::string_view numerics) {
  return numerics.substr(0, numerics.find('/'));
}

std::string joined(const std::string& a, const std::string& b) {
  return a + (a.empty() || b.empty() ? "" : ", ") + b;
}

/// Whether the config says of itself that the run goes on in another class.
bool changes_dtype(const Changes& changes) {
  const auto is_dtype = [](const ConfigChange& change) {
    return change.key == "model.compute_dtype";
  };
  return std::ranges::any_of(changes.fixed, is_dtype) ||
         std::ranges::any_of(changes.told, is_dtype);
}

/// Refuses another class of numerics, or tells of it; tells of another version.
void check_numerics(const ResumeRequest& request, const storage::TrainState& state,
                    const Changes& changes, ResumeDecision& decision) {
  const auto& saved = request.saved.numerics;
  if (!saved || *saved == request.numerics || changes_dtype(changes) ||
      nothing_left(request, state))
    return;
  const bool same_class = class_of(*saved) == class_of(request.numerics);
  const std::string found = fmt::format("{} was learned with numerics {} and this program's are {}",
                                        request.checkpoint, *saved, request.numerics);
  if (!same_class && request.config.trainer().resume_numerics() == proto::TrainerSection::SAME) {
    fail_usage(
        "{}: results would differ from here on; go on where it learned (device {}), or set "
        "trainer.resume_numerics to any",
        found, request.saved.device.value_or("unknown"));
  }
  decision.warnings.push_back(
      fmt::format("{}: from here on results differ{} from those of the program that saved it",
                  found, same_class ? " in the last bits" : ""));
}

}  // namespace

ResumeDecision check_resume(const ResumeRequest& request) {
  ResumeDecision decision;
  if (!request.saved.state) return decision;  // an imported model: no run has begun
  const storage::TrainState& state = *request.saved.state;
  check_steps(request, state);

  Changes changes = find_changes(request, state);
  if (changes.measure) decision.keep_scores = false;
  std::vector<std::string> content, measured;
  if (!request.same_model_config)
    content.emplace_back("model.path: its config.json describes another model");
  if (request.saved.inputs) {
    std::vector<storage::InputDigest> before = *request.saved.inputs,
                                      after(request.inputs.begin(), request.inputs.end());
    drop_unneeded_texts(request, state, before, after);
    measured = measured_changes(request, state, before, after);
    for (std::string& change : input_changes(before, after)) content.push_back(std::move(change));
    changes.paths.clear();  // what they hold was compared
  } else {
    decision.older_program = true;
    decision.warnings.push_back(fmt::format(
        "{} is of an older version of the program, which did not note what the data and the "
        "tokenizer's files held: whether they changed since is not known; "
        "weight_versions of its rollouts were counted otherwise{}",
        request.checkpoint, changed_definitions(request.config)));
  }
  const std::string other =
      joined(to_text(changes.fixed), fmt::format("{}", fmt::join(content, ", ")));

  if (request.own && !other.empty()) {
    fail_usage(
        "run_dir {} holds another experiment, now at step {}: {}; "
        "put that back to go on with it, use another run_dir, "
        "or begin from its weights with another run_dir and trainer.resume={}",
        request.config.run_dir(), state.step(), other, request.config.run_dir());
  }
  check_numerics(request, state, changes, decision);
  const std::string all =
      joined(joined(joined(other, to_text(changes.told)), to_text(changes.paths)),
             fmt::format("{}", fmt::join(measured, ", ")));
  if (nothing_left(request, state) &&
      (!other.empty() || (!changes.told.empty() && !changes.lengths_only))) {
    fail_usage(
        "{} is at the last step of a run that is complete (trainer.total_training_steps {}), "
        "so that this would have no effect: {}; raise trainer.total_training_steps, or {}",
        request.checkpoint, request.config.trainer().total_training_steps(), all, another(request));
  }
  if (!other.empty()) decision.keep_scores = false;
  if (!all.empty()) {
    const bool drops = !decision.keep_scores && state.val_before;
    decision.warnings.push_back(fmt::format(
        "the config differs from the one that was saved; the run goes on with the new values: {}{}",
        all,
        drops ? "; held-out scores from before are of another measurement and are dropped" : ""));
  }
  return decision;
}

void check_run_folder(const std::string& run_dir, const std::string& config_yaml) {
  const fs::path folder = run_dir, saved = folder / "config.yaml",
                 metrics = folder / "metrics.jsonl";
  std::error_code error;
  if (!fs::is_regular_file(saved, error) || !fs::is_regular_file(metrics, error)) return;
  if (fs::file_size(metrics, error) == 0 || error) return;  // nothing came of it
  std::vector<ConfigChange> fixed = config_changes(read_file(saved), config_yaml);
  std::erase_if(fixed,
                [](const ConfigChange& change) { return change.rule != ResumeRule::kFixed; });
  if (fixed.empty()) return;
  fail_usage(
      "run_dir {} holds metrics and rollouts of another experiment, without checkpoints: {}; "
      "use another run_dir, or remove the folder",
      run_dir, to_text(fixed));
}

}  // namespace orrery::experiments
