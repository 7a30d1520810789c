#include "launch/launcher.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>

#include "config/config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/parallel.h"
#include "core/pipes.h"
#include "launch/heartbeat.h"
#include "launch/mpi_job.h"
#include "launch/run_folder.h"
#include "launch/stop_signal.h"
#include "launch/supervision.h"
#include "storage/checkpoint.h"

namespace orrery::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kTick = std::chrono::milliseconds(50);
constexpr auto kLookEvery = std::chrono::milliseconds(500);

/// The launcher's deadline is so much later than the ranks' own, so that rank 0's
/// watchdog speaks first, unless rank 0 itself stands still.
constexpr double kGraceSeconds = 10;

/// An mpirun that ends so soon, without a sign of a rank, would do so again.
constexpr double kStartSeconds = 2;

// A signal handler can reach nothing else.
std::atomic<bool> g_asked_again = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void note_signal(int signal) {
  const int saved = errno;
  if (note_stop_signal(signal) == StopRequest::kNow) g_asked_again = true;
  errno = saved;
}

bool asked_to_stop() { return stop_requested(); }

double seconds_since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

std::string own_executable() {
  std::error_code code;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", code);
  if (code || !std::filesystem::exists(path)) {
    fail("the program file of this process is gone (rebuilt?); start orrery launch again");
  }
  return path.string();
}

/// The whole checkpoints of a run, by step and time, so that one that is written again
/// counts as another.
using Published = std::set<std::pair<int64_t, std::filesystem::file_time_type>>;

Published published(const std::filesystem::path& run_dir) {
  Published found;
  for (const storage::CheckpointSummary& summary :
       storage::list_checkpoints(run_dir / "checkpoints")) {
    std::error_code code;
    const auto time = std::filesystem::last_write_time(summary.folder, code);
    if (summary.problem.empty() && !code) found.emplace(summary.step, time);
  }
  return found;
}

int64_t newest_step(const Published& found) { return found.empty() ? 0 : found.rbegin()->first; }

bool has_more(const Published& now, const Published& before) {
  return std::ranges::any_of(now,
                             [&](const auto& checkpoint) { return !before.contains(checkpoint); });
}

/// What status.json says during one attempt. Only a change of the file counts, so a
/// file from before the attempt is passed over.
class Monitor {
 public:
  explicit Monitor(const std::filesystem::path& run_dir)
      : path_(run_dir / kStatusFile), text_(read()) {}

  void look() {
    const std::string text = read();
    if (text.empty() || text == text_) return;
    text_ = text;
    changed_ = Clock::now();
    if (auto heartbeat = Heartbeat::parse(text)) heartbeat_ = std::move(heartbeat);
  }
  /// Whether ranks are up and answer signals.
  bool started() const { return heartbeat_.has_value(); }
  int64_t step() const { return heartbeat_ ? heartbeat_->step : 0; }

  /// A line while the job hangs, else an empty one. The deadlines are those of
  /// diagnose().
  std::string hang(double file_deadline, double rank_deadline) const {
    if (heartbeat_)
      return diagnose(*heartbeat_, seconds_since(changed_), file_deadline, rank_deadline);
    const double waited = seconds_since(changed_);
    if (rank_deadline == 0 || waited <= rank_deadline) return "";
    return fmt::format("no rank has reported since the start {:.0f} s ago", waited);
  }

 private:
  std::string read() const {
    try {
      return read_file(path_);
    } catch (const Error&) {
      return "";  // not yet there
    }
  }

  std::filesystem::path path_;
  std::string text_;
  Clock::time_point changed_ = Clock::now();
  std::optional<Heartbeat> heartbeat_;
};

class Launcher {
 public:
  Launcher(const LaunchOptions& options, const proto::Config& config)
      : options_(options),
        run_dir_(config.run_dir()),
        resume_(config.trainer().resume()),
        policy_(options.restart),
        at_start_(published(run_dir_)),
        rank_deadline_(options.hang_timeout ? *options.hang_timeout
                                            : config.cluster().hang_timeout_s()) {
    // A deadline that is given for this launch holds for the ranks too.
    file_deadline_ = rank_deadline_;
    if (file_deadline_ > 0 && !options.hang_timeout) file_deadline_ += kGraceSeconds;
    if (rank_deadline_ > 0) rank_deadline_ = file_deadline_ + kGraceSeconds;
  }

  int run() {
    make_run_dir(run_dir_);
    const FileLock lock(run_dir_ / kLaunchLock, std::chrono::seconds(0));
    handle_stop_signals(note_signal);
    ignore_closed_pipes();
    const int code = run_to_the_end();
    // Only the file of this run is changed: a job that could not start must not touch
    // the file of a job that is alive.
    if (ran_) {
      const char* const ended_well = asked_to_stop() ? "stopped" : "done";
      write_final_state(run_dir_ / kStatusFile, {code == kExitOk ? ended_well : "failed", code,
                                                 code == kExitOk ? "" : cause_});
    }
    return code;
  }

 private:
  int run_to_the_end() {
    for (;;) {
      const RestartPolicy::Outcome outcome = attempt();
      if (asked_to_stop()) return stopped(outcome);
      const RestartPolicy::Decision decision = policy_.after(outcome);
      if (decision.restart) {
        spdlog::warn("the job ended (exit code {}, at about step {}): {}", outcome.exit_code,
                     std::max(outcome.step, outcome.published), cause_);
        spdlog::warn(
            "restarting in {:.1f} s from {} (restart {} of at most {} without a new checkpoint)",
            decision.wait_seconds, resume_point(), decision.restarts,
            options_.restart.max_restarts);
        if (wait(decision.wait_seconds)) continue;
        cause_ = "nothing was running, a restart was due after: " + cause_;
        return stopped(outcome);
      }
      if (!decision.reason.empty()) {
        std::fprintf(stderr, "orrery: launch: no restart: %s\n", decision.reason.c_str());
        if (decision.exit_code != kExitUsage && outcome.seen) {
          const bool diverged = decision.exit_code == kExitDiverged;
          std::fprintf(stderr, "orrery: launch: the last failure: %s; %s%s\n", cause_.c_str(),
                       diverged ? "with other settings " : "", how_to_resume().c_str());
        }
      }
      return decision.exit_code;
    }
  }

  std::vector<std::string> command() const {
    std::vector<std::string> program = {own_executable(), "train", options_.config.string()};
    program.insert(program.end(), options_.overrides.begin(), options_.overrides.end());
    if (options_.hang_timeout) {
      program.push_back(fmt::format("cluster.hang_timeout_s={}", *options_.hang_timeout));
    }
    // A run that began anew is resumed once this launch has published a checkpoint. A
    // run that began from a path resumes by itself, and its run_dir must go on saying
    // that it began there.
    if (resume_ == "off" && goes_on()) program.emplace_back("trainer.resume=auto");
    const MpirunOptions mpirun{options_.ranks, options_.mpirun_arguments, available_cpus(),
                               hosts_are_given(options_.mpirun_arguments)};
    return mpirun_command(mpirun, program);
  }

  /// One run of the job, to its end.
  RestartPolicy::Outcome attempt() {
    Monitor monitor(run_dir_);
    announce_attempt(run_dir_, ++attempts_);
    MpiJob job(command());
    const Clock::time_point begin = Clock::now();
    std::string hang, ended_for;
    bool asked = false;
    std::optional<Clock::time_point> stop_since;
    before_stop_.reset();
    Clock::time_point looked_at = Clock::now() - kLookEvery;
    const auto look = [&] {
      looked_at = Clock::now();
      monitor.look();
    };
    while (job.run_for(kTick)) {
      if (Clock::now() - looked_at >= kLookEvery) {
        look();
        hang = monitor.hang(file_deadline_, rank_deadline_);
        if (!hang.empty()) {
          if (job.stopped())
            hang = fmt::format("mpirun itself (process {}) is stopped; {}", job.pid(), hang);
          std::fprintf(stderr, "orrery: launch: the job hangs: %s; ending it\n", hang.c_str());
          job.end();
          break;
        }
      }
      if (!asked_to_stop()) continue;
      if (!stop_since) {
        stop_since = Clock::now();
        before_stop_ = published(run_dir_);
      }
      if (!monitor.started()) look();
      // Before the ranks are up, the signal would kill them. That would lose nothing,
      // but it would look like a failure.
      if (!asked && monitor.started()) {
        spdlog::info("asked to stop: the ranks save and end (again after a second: at once)");
        job.send_signal(SIGUSR1);
        asked = true;
      }
      if (g_asked_again || seconds_since(*stop_since) > options_.stop_timeout) {
        ended_for =
            g_asked_again ? "asked to stop a second time" : "the ranks did not save in time";
        std::fprintf(stderr, "orrery: launch: %s; ending the job\n", ended_for.c_str());
        job.end();
        break;
      }
    }
    look();
    return outcome_of(job, monitor, begin, hang, ended_for);
  }

  /// What an attempt came to that began at `begin` and has ended. `hang`, `ended_for`:
  /// why the launcher ended it, if it did.
  RestartPolicy::Outcome outcome_of(const MpiJob& job, const Monitor& monitor,
                                    Clock::time_point begin, const std::string& hang,
                                    const std::string& ended_for) {
    RestartPolicy::Outcome outcome;
    outcome.exit_code = job.exit_code();
    outcome.step = monitor.step();
    outcome.published = newest_step(published(run_dir_));
    const bool seen = monitor.started() || job.rank_seen();
    const bool at_once = seconds_since(begin) < kStartSeconds && !job.killed() && !asked_to_stop();
    outcome.seen = seen || !hang.empty() || (outcome.exit_code != kExitOk && !at_once);
    ran_ = ran_ || monitor.started();
    cause_ = hang.empty() ? job.cause() : hang;
    if (!ended_for.empty()) cause_ = ended_for;
    if (!hang.empty()) outcome.exit_code = kExitFailure;
    if (!job.killed() || !hang.empty()) outcome.error = cause_;
    return outcome;
  }

  int stopped(const RestartPolicy::Outcome& outcome) const {
    if (outcome.exit_code == kExitOk) {
      spdlog::info("stopped as asked; {}", how_to_resume());
      return kExitOk;
    }
    if (outcome.exit_code == kExitDiverged) {
      std::fprintf(stderr, "orrery: launch: stopped as asked, but the run is over: %s\n",
                   cause_.c_str());
      return kExitDiverged;
    }
    // Another signal than ours, or a second request, may end the job in another way
    // than it was asked to end.
    const Published now = published(run_dir_);
    if (before_stop_ && has_more(now, *before_stop_) && newest_step(now) >= outcome.step) {
      spdlog::warn("stopped as asked and saved, then the job ended otherwise (exit code {}): {}",
                   outcome.exit_code, cause_);
      spdlog::info("{}", how_to_resume());
      return kExitOk;
    }
    std::fprintf(stderr, "orrery: launch: stopped as asked, but without a save: %s; %s\n",
                 cause_.c_str(), how_to_resume().c_str());
    return kExitFailure;
  }

  /// False when asked to stop.
  static bool wait(double seconds) {
    const auto begin = Clock::now();
    while (seconds_since(begin) < seconds) {
      if (asked_to_stop()) return false;
      usleep(20'000);
    }
    return !asked_to_stop();
  }

  /// Whether this launch has published a checkpoint.
  bool goes_on() const { return has_more(published(run_dir_), at_start_); }

  /// Where the next attempt begins.
  std::string resume_point() const {
    const int64_t step = newest_step(published(run_dir_));
    if (step > 0) return fmt::format("the checkpoint of step {}", step);
    return resume_ == "auto" || resume_ == "off" ? "the beginning" : "trainer.resume=" + resume_;
  }

  std::string how_to_resume() const {
    const bool refused = resume_ == "off" && goes_on();
    return fmt::format("the same command{} resumes from {}",
                       refused ? " with trainer.resume=auto" : "", resume_point());
  }

  const LaunchOptions& options_;
  const std::filesystem::path run_dir_;
  const std::string resume_;  // as the user gave it
  RestartPolicy policy_;
  const Published at_start_;
  std::optional<Published> before_stop_;  // when the running attempt was asked to stop
  double file_deadline_ = 0, rank_deadline_;
  int attempts_ = 0;
  bool ran_ = false;   // the ranks of some attempt were up
  std::string cause_;  // why the last attempt ended
};

}  // namespace

int run_launch(const LaunchOptions& options, const proto::Config& config) {
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMIX_RANK") != nullptr) {
    fail_usage("orrery launch starts mpirun itself: run it alone, not under mpirun or srun");
  }
  return Launcher(options, config).run();
}

}  // namespace orrery::launch
