#include "comm/watchdog.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <map>

#include "core/error.h"
#include "core/process.h"

namespace orrery::comm {
namespace {

/// A wait this short (in seconds) is part of working.
constexpr double kBriefWait = 1.0;

/// "rank 3" or "ranks 0, 1, 2".
std::string name_ranks(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(ranks[i]);
  return text;
}

/// A deadline that is shorter than the time to the first warning brings the warning
/// forward. Without warnings the deadline's report is the first one.
WatchdogOptions sensible(WatchdogOptions options) {
  if (options.warn_seconds == 0) options.warn_seconds = std::numeric_limits<double>::infinity();
  if (options.fatal_seconds > 0)
    options.warn_seconds = std::min(options.warn_seconds, options.fatal_seconds);
  return options;
}

}  // namespace

std::string watchdog_line(const std::vector<proto::RankStatus>& statuses,
                          const std::vector<double>& ages, double warn_seconds,
                          double& stuck_seconds) {
  std::vector<std::string> causes;
  std::map<std::string, std::vector<int>> waiting;  // by operation
  double shortest_wait = 0, longest_cause = 0;
  bool all_wait = !statuses.empty();
  for (int r = 0; r < std::ssize(statuses); ++r) {
    const proto::RankStatus& status = statuses[r];
    const double age = ages[r];
    const bool waits = status.waiting_seconds() > kBriefWait;
    if (status.leaving()) continue;  // 6
    if (age > warn_seconds) {        // 3
      causes.push_back(fmt::format("rank {} has been silent for {:.0f} s, last in '{}'", r, age,
                                   status.phase()));
      longest_cause = std::max(longest_cause, age);
    } else if (waits) {  // 4
      const double wait = status.waiting_seconds() + age;
      shortest_wait = shortest_wait == 0 ? wait : std::min(shortest_wait, wait);
      waiting[status.waiting_in()].push_back(r);
      continue;
    } else if (status.still_seconds() + age > warn_seconds) {
      const double still = status.still_seconds() + age;
      causes.push_back(fmt::format("rank {} has been in '{}' for {:.0f} s without progress", r,
                                   status.phase(), still));
      longest_cause = std::max(longest_cause, still);
    }
    all_wait = false;
  }
  // Every rank waits, and even the shortest wait is long (5).
  const bool deadlock = all_wait && shortest_wait > warn_seconds;
  stuck_seconds = deadlock ? shortest_wait : longest_cause;
  if (causes.empty() && !deadlock) return "";
  std::string line = fmt::format("no progress for {:.0f} s: ", stuck_seconds);
  if (deadlock) line += "all ranks wait for each other";
  for (size_t i = 0; i < causes.size(); ++i) line += (i > 0 ? "; " : "") + causes[i];
  for (const auto& [operation, ranks] : waiting) {
    line += fmt::format("; {} {} in {}", name_ranks(ranks), ranks.size() == 1 ? "waits" : "wait",
                        operation);
  }
  return line;
}

Watchdog::Watchdog(Communicator& world, const WatchdogOptions& options, Report report)
    : world_(world),
      options_(sensible(options)),
      report_(std::move(report)),
      comm_(world.duplicate()),
      mailbox_(*comm_),
      next_report_(options_.warn_seconds),
      host_(host_name()) {
  const auto now = Clock::now();
  if (comm_->rank() == 0) last_statuses_.resize(comm_->size(), {{}, now});
  for (LastStatus& last : last_statuses_) last.status.set_phase("start");
  thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    // When an error unwinds, the other ranks may be gone, or busy until the job is
    // aborted, so nobody waits for them.
    drain_ = std::uncaught_exceptions() == 0;
  }
  wake_.notify_all();
  thread_.join();
}

void Watchdog::begin_phase(const std::string& name) {
  note_progress();
  const std::lock_guard lock(mutex_);
  if (phase_ == name) return;
  phase_ = name;
  phase_since_ = Clock::now();
}

void Watchdog::set_step(int64_t step, const char* stage, int64_t stage_step) {
  const std::lock_guard lock(mutex_);
  step_ = step;
  stage_ = stage;
  stage_step_ = stage_step;
}

Watchdog::Wait::Wait(Watchdog* watchdog, const char* operation) : watchdog_(watchdog) {
  if (watchdog_ == nullptr) return;
  watchdog_->wait_since_ = now();
  watchdog_->wait_ = operation;
}

Watchdog::Wait::~Wait() {
  if (watchdog_ == nullptr) return;
  watchdog_->wait_ = nullptr;
  watchdog_->note_progress();
}

proto::RankStatus Watchdog::own_status() {
  proto::RankStatus status;
  status.set_pid(getpid());
  status.set_host(host_);
  Waiting waiting = world_.waiting();
  if (waiting.operation == nullptr) waiting = {wait_, seconds_since(wait_since_)};
  // A wait counts as progress, so that the others' delay is not held against this rank
  // when its wait is over (2).
  if (waiting.operation != nullptr && waiting.seconds > kBriefWait) note_progress();
  const double still = seconds_since(progress_at_);
  const std::lock_guard lock(mutex_);
  status.set_step(step_);
  status.set_stage(stage_);
  status.set_stage_step(stage_step_);
  status.set_phase(phase_);
  status.set_phase_seconds(std::chrono::duration<double>(Clock::now() - phase_since_).count());
  status.set_still_seconds(std::max(still, 0.0));
  if (waiting.operation != nullptr) {
    status.set_waiting_in(waiting.operation);
    status.set_waiting_seconds(waiting.seconds);
  }
  return status;
}

void Watchdog::receive_statuses() {
  int from = 0;
  while (auto status = mailbox_.try_receive<proto::RankStatus>(Communicator::kAnySource, &from)) {
    last_statuses_[from] = {std::move(*status), Clock::now()};
  }
}

void Watchdog::check_ranks() {
  last_statuses_[0] = {own_status(), Clock::now()};
  receive_statuses();
  std::vector<proto::RankStatus> statuses;
  std::vector<double> ages;
  for (const LastStatus& last : last_statuses_) {
    statuses.push_back(last.status);
    ages.push_back(std::chrono::duration<double>(Clock::now() - last.at).count());
  }
  if (options_.observe) options_.observe(statuses, ages);
  double stuck = 0;
  const std::string line = watchdog_line(statuses, ages, options_.warn_seconds, stuck);
  if (line.empty()) {
    next_report_ = options_.warn_seconds;
    return;
  }
  const bool fatal = options_.fatal_seconds > 0 && stuck >= options_.fatal_seconds;
  if (fatal || stuck >= next_report_) {
    next_report_ = std::max(next_report_, stuck) * 2;
    ended_ = fatal;
    report_(line, fatal);
    if (fatal) end_job();
  }
}

void Watchdog::end_job() {
  proto::Control error;
  error.set_kind(proto::Control::ERROR);
  for (int r = 1; r < comm_->size(); ++r) mailbox_.send(r, error);
  if (options_.last_words) options_.last_words();
  if (comm_->size() > 1) std::this_thread::sleep_for(options_.period * 5 / 4);
  if (options_.end) options_.end();
}

void Watchdog::await_end() {
  while (const auto control = mailbox_.try_receive<proto::Control>(0)) {
    if (control->kind() == proto::Control::ERROR && options_.last_words) options_.last_words();
  }
}

void Watchdog::run() {
  const bool collects = comm_->rank() == 0;
  try {
    for (;;) {
      if (!collects) {
        mailbox_.send(0, own_status());
        await_end();
      } else if (!ended_) {
        check_ranks();
      }
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, options_.period, [this] { return stop_; });
      if (stop_) break;
    }
    if (!drain_) return;
    // Rank 0 takes every message, so that none is left when the communicator is freed
    // (6).
    if (!collects) {
      proto::RankStatus last = own_status();
      last.set_leaving(true);
      mailbox_.send(0, last);
      return;
    }
    last_statuses_[0].status.set_leaving(true);
    while (!std::all_of(last_statuses_.begin(), last_statuses_.end(),
                        [](const LastStatus& s) { return s.status.leaving(); })) {
      receive_statuses();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  } catch (const std::exception& e) {
    spdlog::warn("the watchdog stops: {}", e.what());
  }
}

}  // namespace orrery::comm
