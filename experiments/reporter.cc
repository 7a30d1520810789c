#include "experiments/reporter.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/file.h"
#include "core/log.h"
#include "experiments/rollout_records.h"
#include "launch/run_folder.h"
#include "rollout/rollout_file.h"

namespace orrery::experiments {
namespace {

using storage::TrainState;

/// SFT steps from one line on the console to the next.
constexpr int64_t kSftLineEvery = 20;

void print(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

class RunReporter final : public Reporter {
 public:
  RunReporter(const Job& job, RunLength length, const MetricsResume& resume)
      : job_(job),
        length_(length),
        metrics_(job.run_dir, resume, job.config.trainer().tensorboard()) {}

  void begin_stage(int64_t done) override {
    begun_after_ = done;
    timer_ = Timer();
  }

  void sft_start(const TrainState& state, const SftStage::Validation& validation) override {
    print_validation(state, validation);
    metrics_.write(state.step(), kSftStage, state.sft_step, validation.metrics);
  }

  void sft_step(const TrainState& state, const StepReport& step,
                const std::optional<SftStage::Validation>& validation) override {
    Metrics metrics = with_saves(step.metrics);
    if (validation) {
      print_validation(state, *validation);
      metrics.insert(validation->metrics.begin(), validation->metrics.end());
    }
    metrics_.write(state.step(), kSftStage, state.sft_step, metrics);
    const bool last = state.sft_step == length_.sft;
    if (state.sft_step % kSftLineEvery != 0 && !last && !validation) return;
    const std::string val =
        validation ? fmt::format(" | val loss {:.4f}", validation->loss) : std::string();
    print(fmt::format("{} | loss {:.4f}{} | lr {:.2e} | {} tok/s | {:.3f} s/step | ETA {}",
                      sft_text(state), step.stats.loss, val, step.stats.lr,
                      format_count(step.stats.tokens_per_s), seconds_per_step(state.sft_step),
                      time_left(state.sft_step, length_.sft)));
  }

  void rl_step(const TrainState& state, const StepReport& step, Span<const rollout::Group> groups,
               const std::optional<rollout::DrawRecord>& drawn) override {
    metrics_.write(state.step(), rollout::kRlStage, state.rl_step, with_saves(step.metrics));
    const int64_t every = job_.config.trainer().rollout_save_freq();
    if (every > 0 && state.rl_step % every == 0)
      save_rollouts(job_, state, rollout::kRlStage, groups, drawn);
    const StepStats& s = step.stats;
    const auto kl = step.metrics.find("actor/kl_loss");  // written where there is a KL loss
    print(
        fmt::format("{} | reward {:.3f} | length {:.1f} | entropy {:.3f} | kl {} | grad {:.2f} | "
                    "{} tok/s | {:.2f} s/step | ETA {}",
                    rl_text(state), s.reward, s.response_length, s.entropy,
                    kl != step.metrics.end() ? fmt::format("{:.4f}", kl->second) : "off",
                    s.grad_norm, format_count(s.tokens_per_s), seconds_per_step(state.rl_step),
                    time_left(state.rl_step, length_.rl)));
  }

  void rl_validation(const TrainState& state, const RlStage::Validation& validation) override {
    metrics_.write(state.step(), rollout::kValidationStage, state.rl_step, validation.metrics);
    has_accuracy_ = validation.accuracy >= 0;
    print(fmt::format("validation at {} | {} {:.3f} | reward {:.3f} | {} prompts", rl_text(state),
                      score_name(), validation.score(), validation.reward,
                      validation.groups.size()));
    if (job_.config.trainer().rollout_save_freq() > 0)
      save_rollouts(job_, state, rollout::kValidationStage, validation.groups, validation.drawn);
  }

  void saved(double seconds) override { blocked_seconds_ = seconds; }

  void tell_of_saves(std::optional<double> background_seconds) override {
    if (blocked_seconds_ > 0)
      saves_["timing_s/save_checkpoint"] = std::exchange(blocked_seconds_, 0);
    if (background_seconds) saves_["timing_s/save_checkpoint_background"] = *background_seconds;
  }

  void save_left_out(const TrainState& state) override {
    spdlog::warn("the save due at {} is left out: {} step(s) in a row taught nothing",
                 step_text(state), state.skipped_steps);
  }

  void already_complete(const TrainState& state) override {
    spdlog::info("the run in {} is complete at {}; nothing to do", job_.run_dir.string(),
                 rl_text(state));
  }

  void stopped(const TrainState& state) override {
    spdlog::info("asked to stop: the run is saved at {} and can be resumed", step_text(state));
  }

  void complete(const TrainState& state) override {
    print(fmt::format("run folder: {} (metrics.jsonl, checkpoints/, rollouts/)",
                      job_.run_dir.string()));
    if (!state.val_before || !state.val_after) return;
    print(fmt::format("held-out {}: before {:.3f} after {:.3f}", score_name(), *state.val_before,
                      *state.val_after));
  }

 private:
  /// "step 606 (grpo 6/200)"
  std::string rl_text(const TrainState& state) const {
    return fmt::format("step {} ({} {}/{})", state.step(), rollout::kRlStage, state.rl_step,
                       length_.rl);
  }
  std::string sft_text(const TrainState& state) const {
    return fmt::format("step {} ({} {}/{})", state.step(), kSftStage, state.sft_step, length_.sft);
  }
  const char* score_name() const { return has_accuracy_ ? "accuracy" : "score"; }

  void print_validation(const TrainState& state, const SftStage::Validation& validation) const {
    print(fmt::format("validation at {} | loss {:.4f} | {} rows", sft_text(state), validation.loss,
                      validation.rows));
  }

  Metrics with_saves(Metrics metrics) {
    metrics.merge(std::exchange(saves_, {}));
    return metrics;
  }

  double seconds_per_step(int64_t done) const { return timer_.seconds() / (done - begun_after_); }
  std::string time_left(int64_t done, int64_t total) const {
    return format_duration(seconds_per_step(done) * (total - done));
  }

  const Job& job_;
  RunLength length_;
  MetricsWriter metrics_;
  Timer timer_;
  int64_t begun_after_ = 0;
  double blocked_seconds_ = 0;  // of the last save; 0: it was told of
  Metrics saves_;               // for the next step's line
  bool has_accuracy_ = true;
};

}  // namespace

std::unique_ptr<Reporter> make_reporter(const Job& job, const std::string& config_yaml,
                                        RunLength length, const Checkpointer::Resumed& resumed,
                                        bool validates_again) {
  if (!job.is_main()) return std::make_unique<Reporter>();
  const int64_t step = resumed.from_step_0 ? -1 : resumed.state.step();
  for (const std::string& text : resumed.warnings) spdlog::warn("{}", text);
  for (const std::string& text : resumed.news) spdlog::info("{}", text);
  write_file_atomic(job.run_dir / "config.yaml", config_yaml);
  if (resumed.older_program && length.sft > 0) {
    const int64_t renamed = launch::renumber_older_rollouts(job.run_dir, length.sft);
    if (renamed > 0) {
      spdlog::info(
          "the rollouts of {} step(s) have other names now: they counted RL's steps alone, "
          "it is SFT's and RL's",
          renamed);
    }
  }
  const int64_t removed = launch::remove_rollouts_after(job.run_dir, step);
  if (removed > 0) {
    spdlog::info("removed the rollouts of {} step(s) after step {}, which come again", removed,
                 std::max<int64_t>(step, 0));
  }
  return std::make_unique<RunReporter>(job, length,
                                       MetricsResume{step, validates_again, resumed.older_program});
}

}  // namespace orrery::experiments
