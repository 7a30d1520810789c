// Worker processes that answer requests, and what happens when they do not. A worker
// that is late, dies or answers nonsense is killed together with everything it has
// started, and another takes its place. Its request is sent again as often as is
// allowed, and then dropped. Nothing here waits, except where it says so.
//
// A request is one line, {"id": N, ...}, and its answer is one line that repeats the
// id. So nothing that a worker writes beyond its one answer can be taken for the answer
// to the next request.
//
// Not thread-safe: one thread uses a pool.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/json_members.h"
#include "actors/worker.h"
#include "core/span.h"

namespace orrery::actors {

struct WorkerPoolConfig {
  std::string command;
  int64_t workers = 4;
  double timeout_s = 30;
  double start_timeout_s = 60;  ///< added for the first answer of a process
  int64_t retries = 1;          ///< how often a request is sent again after its worker failed
};

class WorkerPool {
 public:
  enum class State : uint8_t { kInWork, kAnswered, kDropped };
  /// Takes an answer that has the right id. An Error that it throws says what is wrong
  /// with the answer, which then counts as nonsense.
  using Accept = std::function<void(const std::vector<JsonMember>& answer)>;

  struct Request {
    uint64_t id = 0;
    std::string rest;   ///< the request's text behind its first member: "\"turn\": 0}"
    std::string about;  ///< what the request is about, for messages: "train.jsonl:7"
    Accept accept;
    State state = State::kInWork;
    int64_t failures = 0;
    std::string why;  ///< why it was dropped
  };

  explicit WorkerPool(WorkerPoolConfig config);
  /// Closes the workers' input and gives them a moment to end by themselves. Busy
  /// workers are killed at once; so are all of them while an exception unwinds.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Starts a first worker when there is none, so that it is ready early, or is known
  /// early not to run.
  void warm_up();

  /// Queues a request, whose state then changes in poll().
  std::shared_ptr<const Request> submit(std::string rest, Accept accept, std::string about = "");

  /// Lets everything make progress. When no request has been answered or dropped, waits
  /// up to `timeout` for that. Returns whether one has. Throws a usage Error when the
  /// command cannot be run, or when several of its processes have failed and none has
  /// ever answered; throws an Error when very many requests in a row have been dropped.
  /// While requests fail, a warning says so now and then.
  bool poll(std::chrono::milliseconds timeout);

  /// Forgets all requests, and kills the workers that are busy with one.
  void cancel();

  /// At the end of a batch of all ranks. Says, for a warning, how many requests have
  /// failed since the last call, how many of them were dropped, and why the last one
  /// failed. Empty when none has. The program has answered by now, if not here then on
  /// another rank, so that processes that fail later are no sign that it cannot run.
  std::string take_failure_text();

 private:
  using Clock = std::chrono::steady_clock;

  struct Slot {
    std::unique_ptr<Worker> worker;  // null until it is needed
    std::shared_ptr<Request> request;
    Clock::time_point deadline;
    uint64_t answered = 0;         // requests that this process has answered
    Clock::time_point not_before;  // when the next process may start
    int64_t failures = 0;          // processes in a row that failed without an answer
  };

  int wait_time(std::chrono::milliseconds timeout) const;
  void wait_for_events(std::chrono::milliseconds timeout);
  void start(Slot& slot);
  void assign_requests();
  void read_from(Slot& slot);
  void take_answer(Slot& slot, const std::string& line);
  void check_deadline(Slot& slot);
  void worker_ended(Slot& slot, const std::string& what);
  /// Kills the worker, logs why, and sends its request again or drops it.
  void failed(Slot& slot, const std::string& what, bool not_found = false);
  void give_up_if_hopeless(const std::string& last, bool not_found);
  void warn_periodically();

  WorkerPoolConfig config_;
  Array<Slot> slots_;
  std::deque<std::shared_ptr<Request>> queue_;
  uint64_t next_id_ = 1;
  bool changed_ = false;                // a request has ended since poll() last said so
  bool ever_answered_ = false;          // some process, here or on another rank
  int64_t early_failures_ = 0;          // processes that failed before that
  int64_t warned_ = 0;                  // warnings written about failures
  int64_t failures_ = 0, dropped_ = 0;  // requests since take_failure_text()
  int64_t dropped_in_a_row_ = 0;
  Clock::time_point warned_at_ = Clock::now();
  std::string last_failure_;
  Clock::time_point looked_;  // when it last looked whether processes have ended
};

}  // namespace orrery::actors
