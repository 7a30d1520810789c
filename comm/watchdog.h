// Says which rank holds the others up, and in what, when a job stands still. Once per
// period a thread of every rank tells rank 0 what the rank is doing. Rank 0 looks for a
// rank that has shown no progress for too long or has gone silent, and for ranks that
// all wait for each other. It costs a rank one sleeping thread.
//
// How a rank is judged, by number; the code refers to it:
//   1. A rank's status says its phase, for how long it has shown no progress ("still"),
//      and the operation it waits in, if any, with the time waited. The status ages
//      until the next one arrives; all times below include that age.
//   2. A rank that waits longer than a moment shows progress as long as it waits. So
//      when the wait ends, its time without progress starts at 0.
//   3. A rank whose status is older than the limit is silent, and a cause of the delay.
//   4. Otherwise a rank that waits is not a cause: some other rank keeps it waiting. A
//      rank that does not wait and has been still beyond the limit is a cause.
//   5. If every rank waits, and even the shortest of the waits is beyond the limit,
//      they wait for each other.
//   6. A rank that ends says so with its last status and is judged no more. Rank 0 ends
//      last: it takes statuses until every rank has said so.
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
  /// Seconds without progress until the first report; further reports come after 2, 4,
  /// 8, ... times as long. 0: never.
  double warn_seconds = 300;
  double fatal_seconds = 0;  ///< seconds without progress until the fatal report; 0: never
  std::chrono::milliseconds period{1000};

  // The watchdog's thread calls these; each may be empty.
  /// On rank 0, once per period: what each rank said last, and the seconds since then.
  std::function<void(std::span<const proto::RankStatus> statuses, std::span<const double> ages)>
      observe;
  /// On every rank that still runs, after the fatal report: the place to print what the
  /// rank did last.
  std::function<void()> last_words;
  /// On rank 0, when the others have had time for their last words: the place to end
  /// the job.
  std::function<void()> end;
};

class Watchdog {
 public:
  /// Is given one line that names ranks, phases and times. Called on rank 0 from the
  /// watchdog's thread; a fatal report is the last one.
  using Report = std::function<void(const std::string& line, bool fatal)>;

  /// Collective over `world`, which must outlive it.
  Watchdog(Communicator& world, const WatchdogOptions& options, Report report);
  /// Collective, unless an error unwinds.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// This rank begins a phase ("generate") or goes on with it; a call is a sign of
  /// progress. Cheap; thread-safe.
  void begin_phase(const std::string& name);
  /// A sign of progress within the phase. Cheaper; thread-safe.
  void note_progress() { progress_at_.store(now(), std::memory_order_relaxed); }
  /// Sets the steps done, in all and of the stage under way (a literal), for whoever
  /// reads the statuses. Thread-safe.
  void set_step(int64_t step, const char* stage, int64_t stage_step);

  /// While it lives, this rank counts as waiting for other ranks, so that it is not
  /// blamed. Must not be nested. `watchdog` may be null; `operation` is a literal.
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
  struct LastStatus {
    proto::RankStatus status;
    Clock::time_point at;
  };

  void run();
  proto::RankStatus own_status();
  void receive_statuses();
  void check_ranks();
  void end_job();
  void await_end();

  Communicator& world_;
  const WatchdogOptions options_;
  const Report report_;
  std::unique_ptr<Communicator> comm_;
  Mailbox mailbox_;
  std::vector<LastStatus> last_statuses_;  // on rank 0: by rank
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

/// The report about all ranks' statuses, or an empty line while something moves. `ages`
/// are the seconds since each status was true. `stuck_seconds` becomes the time for
/// which the worst has lasted (0 when all is well). Exposed for tests.
std::string watchdog_line(const std::vector<proto::RankStatus>& statuses,
                          const std::vector<double>& ages, double warn_seconds,
                          double& stuck_seconds);

}  // namespace orrery::comm
