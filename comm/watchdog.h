// Says which rank holds the others up, and in what, when a job stands still. Every
// rank's thread tells rank 0 what the rank is doing once a period; rank 0 looks for a
// rank that shows no progress for too long, that went silent, or for ranks that all
// wait for each other. Costs a rank one sleeping thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "comm/mailbox.h"

namespace orrery::comm {

struct WatchdogOptions {
  double warn_seconds =
      300;  ///< without progress until the first report; then at 2, 4, 8, ... times; 0: never
  double fatal_seconds = 0;  ///< until the report that is fatal; 0: never
  std::chrono::milliseconds period{1000};

  // Called from the watchdog's thread; each may be empty.
  /// Rank 0, once a period: what each rank said last, and seconds since then.
  std::function<void(std::span<const proto::RankStatus> statuses, std::span<const double> ages)>
      observe;
  /// Every rank that still runs, after the fatal report: the place to print what it did
  /// last.
  std::function<void()> last_words;
  /// Rank 0, when the others have had time for their last words: the place to end the
  /// job.
  std::function<void()> end;
};

class Watchdog {
 public:
  /// One line naming ranks, phases and times. Called on rank 0 from the watchdog's
  /// thread; a fatal one is the last.
  using Report = std::function<void(const std::string& line, bool fatal)>;

  /// Collective over `world`, which must outlive it.
  Watchdog(Communicator& world, const WatchdogOptions& options, Report report);
  /// Collective, unless an error unwinds.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// This rank begins a phase ("generate"), or goes on with it: a call is a sign of
  /// progress. Cheap; thread-safe.
  void phase(const std::string& name);
  /// A sign of progress within the phase. Cheaper; thread-safe.
  void progress() { progress_at_.store(now(), std::memory_order_relaxed); }
  /// Steps done, in all and of the stage under way (a literal), for whoever reads the
  /// statuses. Thread-safe.
  void set_step(int64_t step, const char* stage, int64_t stage_step);

  /// While it lives this rank waits for other ranks, so that it is not the one to
  /// blame. Not nested. `watchdog` may be null; `operation` is a literal.
  class Wait {
   public:
    Wait(Watchdog* watchdog, const char* operation);
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    Watchdog* watchdog_;
  };

 private:
  using Clock = std::chrono::steady_clock;
  static Clock::rep now() { return Clock::now().time_since_epoch().count(); }
  static double seconds_since(Clock::rep then) {
    return std::chrono::duration<double>(Clock::duration(now() - then)).count();
  }
  struct Seen {
    proto::RankStatus status;
    Clock::time_point at;
  };

  void run();
  proto::RankStatus own_status();
  void take_statuses();
  void look();
  void end_job();
  void hear_of_the_end();

  Communicator& world_;
  const WatchdogOptions options_;
  const Report report_;
  std::unique_ptr<Communicator> comm_;
  Mailbox mailbox_;
  std::vector<Seen> seen_;  // rank 0: by rank
  double next_report_;
  bool ended_ = false;  // the fatal report was given
  const std::string host_;

  std::atomic<Clock::rep> progress_at_ = now(), wait_since_ = 0;
  std::atomic<const char*> wait_ = nullptr;

  std::mutex mutex_;  // guards the rest
  std::condition_variable wake_;
  std::string phase_ = "start";
  Clock::time_point phase_since_ = Clock::now();
  int64_t step_ = 0, stage_step_ = 0;
  const char* stage_ = "";
  bool stop_ = false, drain_ = true;
  std::thread thread_;
};

/// The report over all ranks' statuses, or an empty line while something moves. `ages`:
/// seconds since each status was true. `stuck_seconds`: how long the worst has lasted
/// (0 when all is well). Exposed for tests.
std::string watchdog_line(const std::vector<proto::RankStatus>& statuses,
                          const std::vector<double>& ages, double warn_seconds,
                          double& stuck_seconds);

}  // namespace orrery::comm
