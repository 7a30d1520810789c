#include "experiments/launcher.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/parallel.h"
#include "experiments/config.h"
#include "experiments/heartbeat.h"
#include "experiments/mpi_job.h"
#include "models/checkpoint.h"

namespace orrery {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kTick = std::chrono::milliseconds(50);
constexpr auto kLookEvery = std::chrono::milliseconds(500);

/// Rank 0's own watchdog speaks first, unless it is rank 0 that stands still.
constexpr double kGraceSeconds = 10;

// All that a signal handler can reach.
volatile std::sig_atomic_t g_signals = 0;

void on_signal(int) { g_signals = g_signals + 1; }

void install_handlers() {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  }
}

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

/// What status.json says during one attempt. A file from before it is passed over: only a change counts.
class Monitor {
 public:
  explicit Monitor(const std::filesystem::path& run_dir) : path_(run_dir / kStatusFile), text_(read()) {}

  void look() {
    const std::string text = read();
    if (text.empty() || text == text_) return;
    text_ = text;
    changed_ = Clock::now();
    if (auto heartbeat = Heartbeat::parse(text)) heartbeat_ = std::move(heartbeat);
  }
  /// Ranks are up and answer signals.
  bool started() const { return heartbeat_.has_value(); }
  int64_t step() const { return heartbeat_ ? heartbeat_->step : 0; }

  /// A line while the job hangs. Deadlines as diagnose's.
  std::string hang(double file_deadline, double rank_deadline) const {
    if (heartbeat_) return diagnose(*heartbeat_, seconds_since(changed_), file_deadline, rank_deadline);
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
        policy_(options.restart),
        rank_deadline_(options.hang_timeout ? *options.hang_timeout : config.cluster().hang_timeout_s()) {
    // With a deadline given for this launch, that of the ranks is the same.
    file_deadline_ = rank_deadline_;
    if (file_deadline_ > 0 && !options.hang_timeout) file_deadline_ += kGraceSeconds;
    if (rank_deadline_ > 0) rank_deadline_ = file_deadline_ + kGraceSeconds;
  }

  int run() {
    std::filesystem::create_directories(run_dir_);
    const FileLock lock(run_dir_ / ".launch.lock", std::chrono::seconds(0));
    install_handlers();
    for (;;) {
      const RestartPolicy::Outcome outcome = attempt();
      if (g_signals > 0) return stopped(outcome);
      const RestartPolicy::Decision decision = policy_.after(outcome);
      if (decision.restart) {
        spdlog::warn("the job ended (exit code {}, step {}): {}", outcome.exit_code, outcome.step, cause_);
        spdlog::warn("restarting in {:.1f} s from {} (restart {} of at most {} without progress)",
                     decision.wait_seconds, resume_point(), decision.restarts, options_.restart.max_restarts);
        if (!wait(decision.wait_seconds)) return stopped(outcome);
        continue;
      }
      if (!decision.reason.empty()) {
        std::fprintf(stderr, "orrery: launch: no restart: %s\n", decision.reason.c_str());
        if (decision.exit_code != kExitUsage) {
          std::fprintf(stderr, "orrery: launch: the last failure: %s; the same command resumes from %s\n",
                       cause_.c_str(), resume_point().c_str());
        }
      }
      return decision.exit_code;
    }
  }

 private:
  std::vector<std::string> command() const {
    std::vector<std::string> program = {own_executable(), "train", options_.config.string()};
    program.insert(program.end(), options_.overrides.begin(), options_.overrides.end());
    if (options_.hang_timeout) {
      program.push_back(fmt::format("cluster.hang_timeout_s={}", *options_.hang_timeout));
    }
    // A restart goes on with this run, wherever its first attempt began.
    if (attempts_ > 1 && checkpoint_step() > 0) program.emplace_back("trainer.resume=auto");
    const MpirunOptions mpirun{options_.ranks, options_.mpirun_arguments, available_cpus(),
                               hosts_are_given(options_.mpirun_arguments)};
    return mpirun_command(mpirun, program);
  }

  /// One run of the job, to its end.
  RestartPolicy::Outcome attempt() {
    ++attempts_;
    Monitor monitor(run_dir_);
    MpiJob job(command());
    std::string hang;
    bool asked = false;
    std::optional<Clock::time_point> stop_since;
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
          std::fprintf(stderr, "orrery: launch: the job hangs: %s; ending it\n", hang.c_str());
          job.end();
          break;
        }
      }
      if (g_signals == 0) continue;
      if (!stop_since) stop_since = Clock::now();
      if (!monitor.started()) look();
      // Before the ranks are up the signal would kill them, which loses nothing but looks like a failure.
      if (!asked && monitor.started()) {
        spdlog::info("asked to stop: the ranks finish the step and save (again: end at once)");
        job.send_signal(SIGUSR1);
        asked = true;
      }
      if (g_signals > 1 || seconds_since(*stop_since) > options_.stop_timeout) {
        std::fprintf(stderr, "orrery: launch: %s; ending the job without saving\n",
                     g_signals > 1 ? "asked to stop a second time" : "the ranks did not save in time");
        job.end();
        break;
      }
    }
    look();
    RestartPolicy::Outcome outcome;
    outcome.exit_code = job.exit_code();
    outcome.step = std::max(monitor.step(), checkpoint_step());
    cause_ = hang.empty() ? job.cause() : hang;
    if (!hang.empty()) outcome.exit_code = kExitFailure;
    if (!job.killed() || !hang.empty()) outcome.error = cause_;
    return outcome;
  }

  int stopped(const RestartPolicy::Outcome& outcome) const {
    if (outcome.exit_code == kExitOk) {
      spdlog::info("stopped as asked; the same command resumes from {}", resume_point());
      return kExitOk;
    }
    std::fprintf(
        stderr,
        "orrery: launch: stopped as asked, but without a save: %s; the same command resumes from %s\n",
        cause_.c_str(), resume_point().c_str());
    return kExitFailure;
  }

  /// False when asked to stop.
  static bool wait(double seconds) {
    const auto begin = Clock::now();
    while (seconds_since(begin) < seconds) {
      if (g_signals > 0) return false;
      usleep(20'000);
    }
    return g_signals == 0;
  }

  int64_t checkpoint_step() const {
    int64_t step = 0;
    for (const CheckpointSummary& summary : list_checkpoints(run_dir_ / "checkpoints")) {
      if (summary.problem.empty()) step = std::max(step, summary.step);
    }
    return step;
  }

  std::string resume_point() const {
    const int64_t step = checkpoint_step();
    return step > 0 ? fmt::format("the checkpoint of step {}", step) : std::string("the beginning");
  }

  const LaunchOptions& options_;
  const std::filesystem::path run_dir_;
  RestartPolicy policy_;
  double file_deadline_ = 0, rank_deadline_;
  int attempts_ = 0;
  std::string cause_;  // of the last attempt's end
};

}  // namespace

int run_launch(const LaunchOptions& options) {
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMIX_RANK") != nullptr) {
    fail_usage("orrery launch starts mpirun itself: run it alone, not under mpirun or srun");
  }
  const proto::Config config = load_config(options.config, options.overrides);
  check_config(config, options.ranks);
  return Launcher(options, config).run();
}

}  // namespace orrery
