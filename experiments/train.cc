#include "experiments/train.h"

#include <cstdio>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/flight_recorder.h"
#include "core/log.h"
#include "core/timer.h"
#include "experiments/checkpointing.h"
#include "experiments/config.h"
#include "experiments/heartbeat.h"
#include "experiments/rl_stage.h"
#include "experiments/run_folder.h"
#include "experiments/sft_stage.h"
#include "experiments/stop_signal.h"
#include "experiments/together.h"
#include "models/hf_folder.h"
#include "rollout/rollout_file.h"

namespace orrery {
namespace {

/// The frozen policy that RL started from, for the KL loss: the model folder's weights, or what SFT made of
/// them, kept in run_dir/reference so that a resumed run compares with the same.
std::unique_ptr<Transformer> make_reference(Job& job, bool after_sft, const TrainState& state) {
  if (job.config.actor().kl_loss_coef() == 0 || !job.is_learner()) return nullptr;
  auto reference =
      std::make_unique<Transformer>(job.model().config(), job.ctx.device, compute_dtype(job.config));
  const std::filesystem::path kept = job.run_dir / "reference";
  const bool as_loaded = !after_sft && !job.config.model().from_scratch();
  if (as_loaded || state.rl_step > 0) {
    const std::filesystem::path folder = as_loaded ? std::filesystem::path(job.config.model().path()) : kept;
    load_hf_weights(job.ctx, folder, reference->config(), reference->table(), reference->parameters());
  } else {
    std::copy(job.model().parameters().begin(), job.model().parameters().end(),
              reference->parameters().begin());
    if (job.learners->rank() == 0) {
      std::filesystem::remove_all(kept);
      save_hf_folder(kept, reference->config(), reference->table(), reference->parameters(), DType::kF32, {});
    }
  }
  reference->pack(job.ctx);
  return reference;
}

constexpr int kMaxSkippedSteps = 5;

/// What all ranks said last; the watchdog's until it is gone.
struct LastStatus {
  std::vector<proto::RankStatus> ranks;
  std::vector<double> ages;
};

WatchdogOptions watchdog_options(const proto::Config& config, CommWorld& ranks, const RunFolder& folder,
                                 LastStatus& last) {
  WatchdogOptions options;
  options.warn_seconds = config.cluster().hang_warn_s();
  options.fatal_seconds = config.cluster().hang_timeout_s();
  options.observe = [&folder, &last](std::span<const proto::RankStatus> statuses,
                                     std::span<const double> ages) {
    last.ranks.assign(statuses.begin(), statuses.end());
    last.ages.assign(ages.begin(), ages.end());
    // A disk that is full for a moment must not end the run; a stale file only says less.
    if (folder.taken()) write_heartbeat(folder.path() / kStatusFile, statuses, ages);
  };
  const int rank = ranks.world().size() > 1 ? ranks.world().rank() : -1;
  options.last_words = [rank] { print_flight_recorder(rank); };
  options.end = [&ranks] { ranks.abort(kExitFailure); };
  return options;
}

/// One run on one rank.
class Training {
 public:
  Training(Job& job, std::string config_yaml, RunFolder& folder)
      : job_(job),
        checkpointer_(job, config_yaml),
        sft_total_(job.config.sft().total_training_steps()),
        rl_total_(job.config.trainer().total_training_steps()) {
    together(job.world, [&] {
      if (rl_total_ > 0) check_kv_cache(job.config, job.model());
    });
    if (job.is_learner()) {
      const LearnerConfig learner_config{job.config.cluster().gradient_shards(),
                                         job.config.actor().ppo_max_token_len_per_gpu(),
                                         job.config.cluster().reduce() == proto::ClusterSection::FAST};
      learner_ = std::make_unique<Learner>(job.ctx, job.model(), *job.learners, learner_config);
      learner_->set_progress([&job] { job.progress(); });
    }
    together(job.world, [&] {
      if (is_main()) folder.take(/*make=*/true);
    });
    job.phase("resume");
    const std::optional<TrainState> resumed = checkpointer_.resume(learner_.get());
    if (resumed) state_ = *resumed;
    tell_step();
    if (is_main()) {
      write_file_atomic(job.run_dir / "config.yaml", config_yaml);
      metrics_ = std::make_unique<MetricsWriter>(job.run_dir, resumed ? state_.step() : -1,
                                                 job.config.trainer().tensorboard());
    }
  }

  struct End {
    bool complete = true;  ///< false: asked to stop
    int64_t step = 0;
  };
  End run() {
    const bool complete = run_sft() && run_rl();
    job_.phase("finish the last save");
    checkpointer_.finish();
    if (!complete) {
      if (is_main())
        spdlog::info("asked to stop: the run is saved at step {} and can be resumed", state_.step());
      return {false, state_.step()};
    }
    print_result();
    return {true, state_.step()};
  }

 private:
  bool is_main() const { return job_.world.rank() == 0; }

  bool save_due(int64_t done, int64_t total) const {
    const int64_t freq = job_.config.trainer().save_freq();
    return freq >= 0 && (done == total || (freq > 0 && done % freq == 0));
  }

  /// To the watchdog: steps done.
  void tell_step() const {
    if (job_.watchdog != nullptr) job_.watchdog->set_step(state_.step());
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
    if (const auto seconds = checkpointer_.poll()) metrics["timing_s/save_checkpoint_background"] = *seconds;
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
    std::optional<SftStage> stage;
    if (had_work) {
      job_.phase("read the supervised data");
      together(job_.world, [&] {
        if (job_.is_learner()) stage.emplace(job_, *learner_);
      });
    }
    if (stage) {
      const Timer timer;
      const int64_t first = state_.sft_step;
      while (state_.sft_step < sft_total_ && !(stopped = agree_to_stop(*job_.learners))) {
        Metrics metrics = stage->step(state_.sft_step);
        ++state_.sft_step;
        add_save_metrics(metrics);
        tell_step();
        if (is_main()) {
          metrics_->write(state_.step(), "sft", metrics);
          const double per_step = timer.seconds() / static_cast<double>(state_.sft_step - first);
          if (state_.sft_step % 20 == 0 || state_.sft_step == sft_total_) {
            print(fmt::format("sft {}/{} | loss {:.4f} | lr {:.2e} | {} tok/s | {:.3f} s/step | ETA {}",
                              state_.sft_step, sft_total_, metrics["train/loss"], metrics["train/lr"],
                              format_count(metrics["perf/throughput"] * job_.learners->size()), per_step,
                              format_duration(per_step * static_cast<double>(sft_total_ - state_.sft_step))));
          }
        }
        // After the metrics: a run killed in between redoes the step, so that no step is ever missing from
        // the file.
        if (save_due(state_.sft_step, sft_total_)) save(/*must=*/false);
      }
      if (stopped) save(/*must=*/true);
    }
    if (had_work) {  // actors wait here for the learners
      double flag[1] = {stopped ? 1.0 : 0.0};
      job_.world.all_reduce_max(flag);
      stopped = flag[0] > 0;
      if (!stopped) state_.sft_step = sft_total_;
    }
    return !stopped;
  }

  /// False when asked to stop.
  bool run_rl() {
    if (rl_total_ == 0) {
      if (learner_ && state_.rl_step == 0 && sft_total_ > 0 && job_.config.trainer().save_freq() >= 0)
        save(true);
      return true;
    }
    if (state_.rl_step >= rl_total_ && (state_.val_after || job_.config.trainer().test_freq() == 0)) {
      if (is_main())
        spdlog::info("the run in {} is complete ({} steps); nothing to do", job_.run_dir.string(), rl_total_);
      return true;
    }
    reference_ = make_reference(job_, sft_total_ > 0, state_);
    if (learner_) {
      learner_->set_reference(reference_.get());
      // RL starts with fresh moments: SFT's belong to another objective and learning rate.
      if (state_.rl_step == 0) learner_->optimizer().reset();
    }
    RlStage stage(job_, learner_.get());
    stage.publish();
    const int64_t test_freq = job_.config.trainer().test_freq();
    if (test_freq != 0 && state_.rl_step == 0) state_.val_before = validate(stage);

    const Timer timer;
    const int64_t first = state_.rl_step;
    while (state_.rl_step < rl_total_) {
      if (agree_to_stop(job_.world)) {
        save(/*must=*/true);
        return false;
      }
      Metrics metrics = stage.step(state_.rl_step);
      ++state_.rl_step;
      tell_step();
      stop_when_diverged(metrics);
      if (is_main()) state_.reward = metrics["critic/rewards/mean"];
      const bool last = state_.rl_step == rl_total_;
      if (test_freq != 0 && (last || (test_freq > 0 && state_.rl_step % test_freq == 0))) {
        const double score = validate(stage);
        if (last) state_.val_after = score;
      }
      add_save_metrics(metrics);
      report(stage, metrics, timer.seconds() / static_cast<double>(state_.rl_step - first));
      if (save_due(state_.rl_step, rl_total_)) save(/*must=*/last);
    }
    return true;
  }

  /// Steps whose every gradient is not finite change nothing: a run of them will not recover.
  void stop_when_diverged(const Metrics& metrics) {
    const auto it = metrics.find("actor/skipped_updates");
    if (it == metrics.end()) return;
    skipped_steps_ = it->second > 0 ? skipped_steps_ + 1 : 0;
    if (skipped_steps_ == kMaxSkippedSteps) {
      fail(
          "{} steps in a row had a gradient that is not finite (last at step {}): the policy has diverged; "
          "resume from an "
          "earlier checkpoint with a lower actor.optim.lr",
          kMaxSkippedSteps, state_.rl_step);
    }
  }

  double validate(RlStage& stage) {
    const RlStage::Validation result = stage.validate(state_.rl_step);
    const double score = result.accuracy >= 0 ? result.accuracy : result.reward;
    if (is_main()) {
      metrics_->write(state_.step(), "val", result.metrics);
      print(fmt::format("validation at step {} | {} {:.3f} | reward {:.3f} | {} prompts", state_.rl_step,
                        result.accuracy >= 0 ? "accuracy" : "score", score, result.reward,
                        job_.source->val_size()));
      has_accuracy_ = result.accuracy >= 0;
    }
    return score;
  }

  void report(const RlStage& stage, Metrics& metrics, double seconds_per_step) {
    if (!is_main()) return;
    metrics_->write(state_.step(), "grpo", metrics);
    const int64_t every = job_.config.trainer().rollout_save_freq();
    if (every > 0 && state_.rl_step % every == 0) {
      const auto folder = job_.run_dir / "rollouts";
      std::filesystem::create_directories(folder);
      try {
        write_rollout_file(folder / fmt::format("step_{:06}.h5", state_.rl_step),
                           static_cast<uint64_t>(state_.rl_step), stage.last_groups());
      } catch (const Error& error) {
        spdlog::error("the rollouts of step {} are not kept, training goes on: {}", state_.rl_step,
                      error.what());
      }
    }
    const std::string kl = metrics.contains("actor/kl_loss") ? fmt::format("{:.4f}", metrics["actor/kl_loss"])
                                                             : std::string("off");
    print(fmt::format(
        "step {}/{} | reward {:.3f} | length {:.1f} | entropy {:.3f} | kl {} | grad {:.2f} | {} tok/s | "
        "{:.2f} s/step | ETA {}",
        state_.rl_step, rl_total_, metrics["critic/rewards/mean"], metrics["response_length/mean"],
        metrics["actor/entropy"], kl, metrics["actor/grad_norm"],
        format_count(metrics["perf/throughput"] * job_.topology.ranks), seconds_per_step,
        format_duration(seconds_per_step * static_cast<double>(rl_total_ - state_.rl_step))));
  }

  void print_result() const {
    if (!is_main()) return;
    print(fmt::format("run folder: {} (metrics.jsonl, checkpoints/, rollouts/)", job_.run_dir.string()));
    if (state_.val_before && state_.val_after) {
      print(fmt::format("held-out {}: before {:.3f} after {:.3f}", has_accuracy_ ? "accuracy" : "score",
                        *state_.val_before, *state_.val_after));
    }
  }

  Job& job_;
  Checkpointer checkpointer_;
  int64_t sft_total_, rl_total_;
  std::unique_ptr<Transformer> reference_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<MetricsWriter> metrics_;
  TrainState state_;
  double save_seconds_ = 0;
  int skipped_steps_ = 0;
  bool has_accuracy_ = true;
};

Training::End train_watched(const proto::Config& config, const std::string& config_yaml, CommWorld& ranks,
                            RunFolder& folder, LastStatus& last) {
  Communicator& world = ranks.world();
  together(world, [&] {
    if (world.rank() == 0) folder.take(/*make=*/false);
  });
  Watchdog watchdog(world, watchdog_options(config, ranks, folder, last),
                    [](const std::string& line, bool fatal) {
                      if (fatal) {
                        std::fprintf(stderr, "orrery: rank 0: %s; ending all ranks\n", line.c_str());
                      } else {
                        spdlog::warn("{}", line);
                      }
                    });
  watchdog.phase("load");
  const std::unique_ptr<Job> job =
      make_job(config, world, ranks.local_ranks(), training_prompts(config), &watchdog);
  if (world.rank() == 0) {
    spdlog::info("{}", describe_batch(config, world.size()));
    spdlog::info("model {}: {} parameters, {} rank(s) x {} thread(s), {} learner(s), {} actor(s)",
                 config.model().path(),
                 format_count(static_cast<double>(job->model().table().parameter_count())), world.size(),
                 job->ctx.threads, job->topology.learners, job->topology.actors());
    if (config.cluster().reduce() == proto::ClusterSection::FAST && job->topology.learners > 1) {
      spdlog::warn(
          "cluster.reduce is fast: gradients are added in the order the MPI library picks, so another number "
          "of learners, or another MPI, ends in other weights (in the last bits at first); 'ordered' gives "
          "the same bits on any layout");
    }
  }
  const Training::End end = Training(*job, config_yaml, folder).run();
  job->phase("end");
  return end;
}

}  // namespace

int run_training(const proto::Config& config, const std::string& config_yaml, CommWorld& ranks) {
  Communicator& world = ranks.world();
  install_stop_handlers(/*tell=*/world.rank() == 0);
  record_event("start of {} rank(s)", world.size());
  RunFolder folder(config.run_dir());
  LastStatus last;
  const Training::End end = train_watched(config, config_yaml, ranks, folder, last);
  if (world.rank() == 0 && !last.ranks.empty()) {
    for (proto::RankStatus& status : last.ranks) {
      status.set_step(end.step);
      status.set_phase("end");
      status.set_leaving(true);
      status.clear_waiting_in();
    }
    write_heartbeat(folder.path() / kStatusFile, last.ranks, last.ages,
                    {end.complete ? "done" : "stopped", kExitOk});
  }
  return kExitOk;
}

}  // namespace orrery
