// Background work that gives way to other work. Its pieces run on a thread of the
// lowest priority, which gets only the CPU time that others leave, so that a team of
// threads that computes beside it does not wait for one of its members. A process
// without privileges cannot raise such a thread to normal priority again. So the thread
// that has the work to do hands it over piece by piece, and does pieces itself when
// somebody waits for the end (set_urgent()) or when others leave no CPU time: it then
// works for 1/16 of its time at its own priority, so that the work does end.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace orrery {

/// Runs a piece of work and returns when it is done; passes on what it throws.
using PieceRunner = std::function<void(const std::function<void()>& piece)>;

/// The PieceRunner that runs a piece on the calling thread, without delay.
void run_inline(const std::function<void()>& piece);

/// From now on the calling thread gets only the CPU time that others leave. Where the
/// system refuses, nothing changes.
void lower_thread_priority();

class LowPriorityWorker {
 public:
  LowPriorityWorker() = default;
  ~LowPriorityWorker();
  LowPriorityWorker(const LowPriorityWorker&) = delete;
  LowPriorityWorker& operator=(const LowPriorityWorker&) = delete;

  /// Begins new work. Must not be called while run() is under way. The first tenth of a
  /// second is done at the priority of run()'s caller: so little disturbs nobody, and
  /// small work is done without delay.
  void begin();

  /// A PieceRunner, for one thread at a time. Pieces should be short (a millisecond),
  /// because the caller waits for a piece that it has handed over. The first one that
  /// is handed over starts the thread.
  void run(const std::function<void()>& piece);

  /// Sets whether somebody waits for the work: run() then does the pieces itself.
  /// Thread-safe.
  void set_urgent(bool urgent) { urgent_ = urgent; }

 private:
  void serve();

  std::atomic<bool> urgent_ = false;
  std::chrono::steady_clock::duration credit_{0};  // time that run() may work itself
  std::mutex mutex_;                               // guards the rest
  std::condition_variable wake_, finished_;
  const std::function<void()>* piece_ = nullptr;
  std::exception_ptr error_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace orrery
