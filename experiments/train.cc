#include "experiments/train.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include "config/config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/flight_recorder.h"
#include "core/log.h"
#include "core/pipes.h"
#include "core/plain_error.h"
#include "core/timer.h"
#include "experiments/checkpointing.h"
#include "experiments/config_check.h"
#include "experiments/divergence.h"
#include "experiments/rl_stage.h"
#include "experiments/rollout_records.h"
#include "experiments/sft_stage.h"
#include "experiments/together.h"
#include "launch/heartbeat.h"
#include "launch/run_folder.h"
#include "launch/stop_signal.h"
#include "launch/supervision.h"
#include "rollout/rollout_file.h"
#include "storage/hf_folder.h"

namespace orrery::experiments {
namespace {

/// The frozen policy that RL started from, for the KL loss: the model folder's weights,
/// or what SFT made of them (or the checkpoint that trainer.resume names), kept in
/// run_dir/reference so that a resumed run compares with the same. This one is for when
/// it is in a folder; null when RL is yet to begin from what is trained here, or no
/// reference is needed. Writes nothing.
std::unique_ptr<models::Transformer> load_reference(Job& job, bool after_sft,
                                                    const storage::TrainState& state) {
  if (job.config.actor().kl_loss_coef() == 0 || !job.is_learner()) return nullptr;
  const std::filesystem::path kept = job.run_dir / "reference";
  const bool as_loaded = !after_sft && !job.config.model().from_scratch();
  const bool goes_on =
      state.rl_step > 0 && !storage::list_checkpoints(job.run_dir / "checkpoints").empty();
  if (!as_loaded && goes_on && !std::filesystem::exists(kept)) {
    fail_usage(
        "actor.kl_loss_coef is {} but was 0 when RL began in {}, "
        "so that the policy it began from was not kept: "
        "set it to 0, or begin another run with trainer.resume={} in another run_dir",
        job.config.actor().kl_loss_coef(), job.run_dir.string(), job.run_dir.string());
  }
  if (!as_loaded && !goes_on) return nullptr;
  auto reference = std::make_unique<models::Transformer>(job.model().config(), job.ctx.device,
                                                         config::compute_dtype(job.config));
  const std::filesystem::path folder =
      as_loaded ? std::filesystem::path(job.config.model().path()) : kept;
  storage::load_hf_weights(job.ctx, folder, reference->config(), reference->table(),
                           reference->parameters());
  reference->pack(job.ctx);
  return reference;
}

/// The policy as it is now, where RL begins, kept in run_dir/reference. Null when none
/// is needed.
std::unique_ptr<models::Transformer> keep_reference(Job& job) {
  if (job.config.actor().kl_loss_coef() == 0 || !job.is_learner()) return nullptr;
  const std::filesystem::path kept = job.run_dir / "reference";
  auto reference = std::make_unique<models::Transformer>(job.model().config(), job.ctx.device,
                                                         config::compute_dtype(job.config));
  std::copy(job.model().parameters().begin(), job.model().parameters().end(),
            reference->parameters().begin());
  if (job.learners->rank() == 0) {
    std::error_code error;
    std::filesystem::remove_all(kept, error);
    if (error) fail("cannot remove {}: {}", kept.string(), system_reason(error.value()));
    storage::save_hf_folder(kept, reference->config(), reference->table(), reference->parameters(),
                            DType::kF32, {});
  }
  reference->pack(job.ctx);
  return reference;
}

/// What all ranks said last; the watchdog's until it is gone.
struct LastStatus {
  std::vector<proto::RankStatus> ranks;
  std::vector<double> ages;
  std::string hang;  ///< for which the watchdog ends the job
};

comm::WatchdogOptions watchdog_options(const proto::Config& config, comm::CommWorld& ranks,
                                       const launch::RunFolder& folder, LastStatus& last) {
  comm::WatchdogOptions options;
  options.warn_seconds = config.cluster().hang_warn_s();
  options.fatal_seconds = config.cluster().hang_timeout_s();
  options.observe = [&folder, &last](std::span<const proto::RankStatus> statuses,
                                     std::span<const double> ages) {
    last.ranks.assign(statuses.begin(), statuses.end());
    last.ages.assign(ages.begin(), ages.end());
    if (!folder.taken()) return;
    const std::filesystem::path path = folder.path() / launch::kStatusFile;
    // A rank that ends the job may have said so while this one is still there.
    if (launch::says_failed(path)) return;
    // A disk that is full for a moment must not end the run; a stale file only says
    // less.
    launch::write_heartbeat(path, statuses, ages);
  };
  const int rank = ranks.world().size() > 1 ? ranks.world().rank() : -1;
  options.last_words = [rank] { print_flight_recorder(rank); };
  options.end = [&ranks, &folder, &last] {
    if (folder.taken())
      launch::write_failure(folder.path() / launch::kStatusFile, kExitFailure, last.hang);
    ranks.abort(kExitFailure);
  };
  return options;
}

/// One run on one rank.
class Training {
 public:
  Training(Job& job, std::string config_yaml, launch::RunFolder& folder)
      : job_(job),
        checkpointer_(job, config_yaml),
        sft_total_(job.config.sft().total_training_steps()),
        rl_total_(job.config.trainer().total_training_steps()) {
    together(job.world, [&] {
      if (rl_total_ > 0) check_kv_cache(job.config, job.model().config());
    });
    if (job.is_learner()) {
      const learners::LearnerConfig learner_config{
          job.config.cluster().gradient_shards(), job.config.actor().ppo_max_token_len_per_gpu(),
          job.config.cluster().reduce() == proto::ClusterSection::FAST};
      learner_ =
          std::make_unique<learners::Learner>(job.ctx, job.model(), *job.learners, learner_config);
      learner_->set_progress([&job] { job.progress(); });
    }
    together(job.world, [&] {
      if (is_main()) folder.take(/*make=*/true);
    });
    folder.note_taken();
    job.phase("resume");
    const Checkpointer::Resumed resumed = checkpointer_.resume(learner_.get());
    state_ = resumed.state;
    tell_step();
    if (learner_) {
      divergence_.emplace(job_.ctx, *job.learners, std::as_const(job.model()).parameters(),
                          *learner_, state_.start_largest.value_or(1));
    }
    // All that may refuse comes before anything in the folder is written.
    if (!sft_is_done()) {
      job_.phase("read the supervised data");
      together(job_.world, [&] {
        if (job_.is_learner()) sft_.emplace(job_, *learner_);
      });
    }
    // A reward program that cannot even start is better known before SFT than after it.
    if (rl_total_ > 0 && !sft_is_done())
      together(job_.world, [&] {
        if (job_.is_actor()) job_.env->try_out();
      });
    if (rl_total_ > 0 && !is_complete())
      together(job_.world, [&] { reference_ = load_reference(job_, sft_total_ > 0, state_); });
    together(job.world, [&] {
      if (is_main()) begin_records(resumed, config_yaml);
    });
    if (job_.config.trainer().save_freq() >= 0 && !is_complete())
      checkpointer_.prepare(learner_.get());
  }

  struct End {
    bool complete = true;  ///< false: asked to stop
    storage::TrainState state;
  };
  End run() {
    const bool complete = run_sft() && run_rl();
    job_.phase("finish the last save");
    checkpointer_.finish();
    if (!complete) {
      if (is_main())
        spdlog::info("asked to stop: the run is saved at {} and can be resumed",
                     storage::step_text(state_));
      return {false, state_};
    }
    print_result();
    return {true, state_};
  }

 private:
  bool is_main() const { return job_.world.rank() == 0; }

  bool save_due(int64_t done, int64_t total) const {
    const int64_t freq = job_.config.trainer().save_freq();
    return freq >= 0 && (done == total || (freq > 0 && done % freq == 0));
  }

  bool sft_is_done() const { return state_.sft_step >= sft_total_; }

  bool is_complete() const {
    return sft_is_done() && state_.rl_step >= rl_total_ &&
           (state_.val_after || job_.config.trainer().test_freq() == 0);
  }

  /// To the watchdog: steps done.
  void tell_step() const {
    if (job_.watchdog == nullptr) return;
    const bool rl = sft_is_done() && rl_total_ > 0;
    job_.watchdog->set_step(state_.step(), rl ? "grpo" : "sft",
                            rl ? state_.rl_step : state_.sft_step);
  }

  /// "step 606 (grpo 6/200)"
  std::string rl_text() const {
    return fmt::format("step {} (grpo {}/{})", state_.step(), state_.rl_step, rl_total_);
  }
  std::string sft_text() const {
    return fmt::format("step {} (sft {}/{})", state_.step(), state_.sft_step, sft_total_);
  }

  /// What the run writes beside checkpoints, without what belongs to steps that it does
  /// again.
  void begin_records(const Checkpointer::Resumed& resumed, const std::string& config_yaml) {
    const int64_t step = resumed.from_step_0 ? -1 : state_.step();
    for (const std::string& text : resumed.warnings) spdlog::warn("{}", text);
    for (const std::string& text : resumed.news) spdlog::info("{}", text);
    write_file_atomic(job_.run_dir / "config.yaml", config_yaml);
    if (resumed.older_program && sft_total_ > 0) {
      const int64_t renamed = launch::renumber_older_rollouts(job_.run_dir, sft_total_);
      if (renamed > 0) {
        spdlog::info(
            "the rollouts of {} step(s) have other names now: "
            "they counted RL's steps alone, it is SFT's and RL's",
            renamed);
      }
    }
    const int64_t removed = launch::remove_rollouts_after(job_.run_dir, step);
    if (removed > 0) {
      spdlog::info("removed the rollouts of {} step(s) after step {}, which come again", removed,
                   std::max<int64_t>(step, 0));
    }
    metrics_ = std::make_unique<MetricsWriter>(
        job_.run_dir,
        MetricsResume{step, validates_first() || state_.validation_due, resumed.older_program},
        job_.config.trainer().tensorboard());
  }

  /// What comes next begins with a validation: RL, or the first step of SFT.
  bool validates_first() const {
    const bool tests = job_.config.trainer().test_freq() != 0;
    const bool sft = state_.step() == 0 && !job_.config.sft().val_files().empty() && !sft_is_done();
    return tests && (sft || (rl_total_ > 0 && state_.rl_step == 0));
  }

  /// After a step: counts those in a row that taught nothing, as it was skipped or is
  /// of a dead policy. Why the run must end, alike on all learners; nothing on other
  /// ranks. `save`: a checkpoint is due, or it is the stage's last step, so that the
  /// policy is tried.
  std::string why_end(bool skipped, bool dead, int64_t stage_total, bool save,
                      const std::optional<PolicyProbe>& probe) {
    state_.skipped_steps = skipped || dead ? state_.skipped_steps + 1 : 0;
    std::string why = skipped_too_often(state_.skipped_steps, stage_total, dead);
    if (why.empty() && save) why = divergence_->problem(probe);
    return why;
  }
  std::string why_end_sft(const Metrics& step, bool save) {
    const bool dead = is_dead_gradient(step.at("train/grad_norm"), step.at("train/entropy"),
                                       /*signal=*/step.at("train/loss") != 0);
    return why_end(step.at("train/skipped_updates") > 0, dead, sft_total_, save, sft_->probe());
  }
  std::string why_end_rl(const Metrics& step, bool save, const std::optional<PolicyProbe>& probe) {
    if (!divergence_) return "";
    const auto is_other_than_0 = [&step](const char* name) {
      const auto found = step.find(name);
      return found != step.end() && found->second != 0;
    };
    const bool signal =
        is_other_than_0("critic/advantages/max") || is_other_than_0("critic/advantages/min");
    const bool dead =
        is_dead_gradient(step.at("actor/grad_norm"), step.at("actor/entropy"), signal);
    return why_end(step.at("actor/skipped_updates") > 0, dead, rl_total_, save, probe);
  }

  /// On every rank: the save under way is of a sound policy, and the last.
  [[noreturn]] void end_of_diverged(const std::string& why, const char* rate_key) {
    checkpointer_.finish(/*must=*/false);
    end_diverged(storage::step_text(state_), why, rate_key,
                 job_.config.trainer().resume() != "off");
  }

  /// A checkpoint that is due in the middle of a stage, but not after a skipped step:
  /// its weights would be those of the one before.
  void save_if_learned(bool last, bool must) {
    if (last || state_.skipped_steps == 0) {
      save(must);
    } else if (is_main()) {
      spdlog::warn("the save due at {} is left out: {} step(s) in a row taught nothing",
                   storage::step_text(state_), state_.skipped_steps);
    }
  }

  /// For the end of a run: the checkpoint of this step is there, which may have been
  /// saved before.
  void save_at_the_end() {
    if (learner_ && !checkpointer_.has(state_.step())) save(/*must=*/true);
  }

  void save(bool must) {
    job_.phase(fmt::format("save step {}", state_.step()));
    state_.adam_t = learner_ ? learner_->optimizer().t() : 0;
    const double seconds = checkpointer_.save(state_, learner_.get(), must);
    if (is_main()) save_seconds_ = seconds;
  }

  /// Of the last save, whose step's line was written before.
  void add_save_metrics(Metrics& metrics) {
    if (save_seconds_ > 0) metrics["timing_s/save_checkpoint"] = std::exchange(save_seconds_, 0);
    if (const auto seconds = checkpointer_.poll())
      metrics["timing_s/save_checkpoint_background"] = *seconds;
  }

  void print(const std::string& line) const {
    if (!is_main()) return;
    std::fputs((line + "\n").c_str(), stdout);
    std::fflush(stdout);
  }

  /// False when asked to stop.
  bool run_sft() {
    const bool had_work = state_.sft_step < sft_total_;
    bool stopped = false;
    std::string why;  // the run must end
    if (sft_) {
      const Timer timer;
      const int64_t first = state_.sft_step;
      if (first == 0 && sft_total_ > 0 && sft_->validation_due(0)) {
        const Metrics measured = validate_sft();
        if (is_main()) metrics_->write(0, "sft", 0, measured);
      }
      while (state_.sft_step < sft_total_ && why.empty() &&
             !(stopped = launch::agree_to_stop(*job_.learners))) {
        Metrics metrics = sft_->step(state_.sft_step);
        ++state_.sft_step;
        const bool last = state_.sft_step == sft_total_,
                   due = save_due(state_.sft_step, sft_total_);
        why = why_end_sft(metrics, last || due);
        const bool measures = why.empty() && sft_->validation_due(state_.sft_step);
        if (measures) metrics.merge(validate_sft());
        add_save_metrics(metrics);
        tell_step();
        if (is_main()) {
          metrics_->write(state_.step(), "sft", state_.sft_step, metrics);
          const double per_step = timer.seconds() / static_cast<double>(state_.sft_step - first);
          if (state_.sft_step % 20 == 0 || last || measures) {
            const std::string val =
                measures ? fmt::format(" | val loss {:.4f}", metrics["val/loss"]) : "";
            print(fmt::format(
                "{} | loss {:.4f}{} | lr {:.2e} | {} tok/s | {:.3f} s/step | ETA {}", sft_text(),
                metrics["train/loss"], val, metrics["train/lr"],
                format_count(metrics["perf/throughput"] * job_.learners->size()), per_step,
                format_duration(per_step * static_cast<double>(sft_total_ - state_.sft_step))));
          }
        }
        // After the metrics: a run killed in between redoes the step, so that no step
        // is ever missing from the file.
        if (due && why.empty()) save_if_learned(last, /*must=*/false);
      }
      if (stopped) why = divergence_->problem(sft_->probe());
      if (stopped && why.empty()) save_at_the_end();
      sft_.reset();
    }
    if (had_work) {  // actors wait here for the learners
      why = first_text(job_.world, why);
      if (!why.empty()) end_of_diverged(why, "sft.optim.lr");
      double flag[1] = {stopped ? 1.0 : 0.0};
      job_.world.all_reduce_max(flag);
      stopped = flag[0] > 0;
      if (!stopped) state_.sft_step = sft_total_;
      tell_step();
    }
    return !stopped;
  }

  /// On learners.
  Metrics validate_sft() {
    Metrics measured = sft_->validate();
    print(fmt::format("validation at {} | loss {:.4f} | {} rows", sft_text(), measured["val/loss"],
                      sft_->val_rows()));
    return measured;
  }

  /// False when asked to stop.
  bool run_rl() {
    if (rl_total_ == 0) {
      // As a rule the last SFT step has saved; it may have failed.
      if (state_.rl_step == 0 && sft_total_ > 0 && job_.config.trainer().save_freq() >= 0)
        save_at_the_end();
      return true;
    }
    if (is_complete()) {
      if (is_main())
        spdlog::info("the run in {} is complete at {}; nothing to do", job_.run_dir.string(),
                     rl_text());
      return true;
    }
    together(job_.world, [&] {
      if (!reference_) reference_ = keep_reference(job_);
    });
    if (learner_) {
      learner_->set_reference(reference_.get());
      // RL starts with fresh moments: SFT's belong to another objective and learning
      // rate.
      if (state_.rl_step == 0) {
        learner_->optimizer().reset();
        state_.start_largest = divergence_->begin_stage();
      }
    }
    if (state_.rl_step == 0) state_.skipped_steps = 0;
    RlStage stage(job_, learner_.get(), state_.sft_step);
    stage.publish(static_cast<uint64_t>(state_.step()));
    const int64_t test_freq = job_.config.trainer().test_freq();
    state_.validation_due = test_freq != 0 && (state_.validation_due || validates_first());
    if (state_.validation_due) {
      if (!validate(stage)) return stop(stage);
      if (save_due(state_.rl_step, rl_total_) && state_.rl_step == rl_total_) save(/*must=*/true);
    }

    const Timer timer;
    const int64_t first = state_.rl_step;
    while (state_.rl_step < rl_total_) {
      if (launch::agree_to_stop(job_.world)) return stop(stage);
      std::optional<Metrics> done = stage.step(state_.rl_step);
      if (!done) return stop(stage);
      Metrics& metrics = *done;
      ++state_.rl_step;
      tell_step();
      if (is_main()) state_.reward = metrics["critic/rewards/mean"];
      const bool last = state_.rl_step == rl_total_, due = save_due(state_.rl_step, rl_total_);
      const auto per_step = [&] {
        return timer.seconds() / static_cast<double>(state_.rl_step - first);
      };
      const std::string why =
          first_text(job_.world, why_end_rl(metrics, last || due, stage.probe()));
      if (!why.empty()) {
        report(stage, metrics, per_step());
        end_of_diverged(why, "actor.optim.lr");
      }
      if (test_freq != 0 && (last || (test_freq > 0 && state_.rl_step % test_freq == 0))) {
        state_.validation_due = true;
        validate(stage);
      }
      add_save_metrics(metrics);
      report(stage, metrics, per_step());
      if (state_.validation_due) return stop(stage);
      if (due) save_if_learned(last, /*must=*/last);
    }
    return true;
  }

  /// Saves what the last step left, unless the policy is beyond repair. False, as
  /// run_rl() then is.
  bool stop(const RlStage& stage) {
    const bool saved = !learner_ || checkpointer_.has(state_.step());
    const std::string why =
        first_text(job_.world, saved ? std::string() : divergence_->problem(stage.probe()));
    if (!why.empty()) end_of_diverged(why, "actor.optim.lr");
    if (!saved) save(/*must=*/true);
    return false;
  }

  /// The validation that is due. False when asked to stop: it still is.
  bool validate(RlStage& stage) {
    const std::optional<RlStage::Validation> validation = stage.validate(state_.rl_step);
    if (!validation) return false;
    const RlStage::Validation& result = *validation;
    const double score = result.accuracy >= 0 ? result.accuracy : result.reward;
    state_.validation_due = false;
    if (state_.rl_step == 0) state_.val_before = score;
    if (state_.rl_step == rl_total_) state_.val_after = score;
    if (is_main()) {
      metrics_->write(state_.step(), "val", state_.rl_step, result.metrics);
      print(fmt::format("validation at {} | {} {:.3f} | reward {:.3f} | {} prompts", rl_text(),
                        result.accuracy >= 0 ? "accuracy" : "score", score, result.reward,
                        result.groups.size()));
      has_accuracy_ = result.accuracy >= 0;
      if (job_.config.trainer().rollout_save_freq() > 0)
        keep_rollouts(job_, state_, rollout::kValidationStage, result.groups);
    }
    return true;
  }

  void report(const RlStage& stage, Metrics& metrics, double seconds_per_step) {
    if (!is_main()) return;
    metrics_->write(state_.step(), "grpo", state_.rl_step, metrics);
    const int64_t every = job_.config.trainer().rollout_save_freq();
    if (every > 0 && state_.rl_step % every == 0)
      keep_rollouts(job_, state_, rollout::kRlStage, stage.last_groups());
    const std::string kl = metrics.contains("actor/kl_loss")
                               ? fmt::format("{:.4f}", metrics["actor/kl_loss"])
                               : std::string("off");
    print(fmt::format(
        "{} | reward {:.3f} | length {:.1f} | entropy {:.3f} | kl {} | grad {:.2f} | {} tok/s | "
        "{:.2f} s/step | ETA {}",
        rl_text(), metrics["critic/rewards/mean"], metrics["response_length/mean"],
        metrics["actor/entropy"], kl, metrics["actor/grad_norm"],
        format_count(metrics["perf/throughput"] * job_.topology.ranks), seconds_per_step,
        format_duration(seconds_per_step * static_cast<double>(rl_total_ - state_.rl_step))));
  }

  void print_result() const {
    if (!is_main()) return;
    print(fmt::format("run folder: {} (metrics.jsonl, checkpoints/, rollouts/)",
                      job_.run_dir.string()));
    if (state_.val_before && state_.val_after) {
      print(fmt::format("held-out {}: before {:.3f} after {:.3f}",
                        has_accuracy_ ? "accuracy" : "score", *state_.val_before,
                        *state_.val_after));
    }
  }

  Job& job_;
  Checkpointer checkpointer_;
  int64_t sft_total_, rl_total_;
  std::unique_ptr<models::Transformer> reference_;
  std::unique_ptr<learners::Learner> learner_;
  std::optional<DivergenceCheck> divergence_;  // on learners
  std::optional<SftStage> sft_;                // on learners, until it is done
  std::unique_ptr<MetricsWriter> metrics_;
  storage::TrainState state_;
  double save_seconds_ = 0;
  bool has_accuracy_ = true;
};

Training::End train_watched(const proto::Config& config, const std::string& config_yaml,
                            comm::CommWorld& ranks, launch::RunFolder& folder, LastStatus& last) {
  comm::Communicator& world = ranks.world();
  together(world, [&] {
    if (world.rank() == 0) folder.take(/*make=*/false);
  });
  comm::Watchdog watchdog(world, watchdog_options(config, ranks, folder, last),
                          [&last](const std::string& line, bool fatal) {
                            if (fatal) {
                              last.hang = line;
                              std::fprintf(stderr, "orrery: rank 0: %s; ending all ranks\n",
                                           line.c_str());
                            } else {
                              spdlog::warn("{}", line);
                            }
                          });
  watchdog.phase("load");
  const std::unique_ptr<Job> job =
      make_job(config, world, ranks.local_ranks(), training_prompts(config), &watchdog);
  // The supervisor's log has it all from the first attempt.
  if (world.rank() == 0 && launch::supervised_attempt(config.run_dir()) <= 1) {
    spdlog::info("{}", describe_batch(config, world.size()));
    spdlog::info("model {}: {} parameters, {} rank(s) x {} thread(s), {} learner(s), {} actor(s)",
                 config.model().path(),
                 format_count(static_cast<double>(job->model().table().parameter_count())),
                 world.size(), job->ctx.threads, job->topology.learners, job->topology.actors());
    if (config.cluster().reduce() == proto::ClusterSection::FAST && job->topology.learners > 1) {
      spdlog::warn(
          "cluster.reduce is fast: gradients are added in the order the MPI library picks, "
          "so another number of learners, or another MPI, "
          "ends in other weights (in the last bits at first); "
          "'ordered' gives the same bits on any layout");
    }
  }
  const Training::End end = Training(*job, config_yaml, folder).run();
  job->phase("end");
  return end;
}

}  // namespace

int run_training(const proto::Config& config, const std::string& config_yaml,
                 comm::CommWorld& ranks) {
  comm::Communicator& world = ranks.world();
  launch::install_stop_handlers(/*tell=*/world.rank() == 0);
  ignore_closed_pipes();
  record_event("start of {} rank(s)", world.size());
  launch::RunFolder folder(config.run_dir());
  LastStatus last;
  const Training::End end = [&] {
    try {
      return train_watched(config, config_yaml, ranks, folder, last);
    } catch (const std::exception& error) {
      // Of an error that all ranks agree on, rank 0 speaks.
      const bool mine = world.rank() == 0 || dynamic_cast<const AgreedError*>(&error) == nullptr;
      const PlainError plain = plain_error(error);
      const std::filesystem::path status = folder.path() / launch::kStatusFile;
      // The first that fails has the reason; what others meet then follows from it.
      if (mine && folder.taken() && !launch::says_failed(status))
        launch::write_failure(status, plain.exit_code, plain.text);
      throw;
    }
  }();
  if (world.rank() == 0 && !last.ranks.empty()) {
    for (proto::RankStatus& status : last.ranks) {
      status.set_step(end.state.step());
      status.set_stage(end.state.stage());
      status.set_stage_step(end.state.stage_step());
      status.set_phase("end");
      status.set_leaving(true);
      status.clear_waiting_in();
    }
    launch::write_heartbeat(folder.path() / launch::kStatusFile, last.ranks, last.ages,
                            {end.complete ? "done" : "stopped", kExitOk});
  }
  return kExitOk;
}

}  // namespace orrery::experiments
