// Runs mpirun as a child process: makes its command line, reads what it and the ranks
// say on stderr, and ends all its processes on this host for certain.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace orrery::launch {

struct MpirunOptions {
  int ranks = 1;
  std::vector<std::string> extra;  ///< the user's own words for mpirun; they win over ours
  int cpus = 1;                    ///< of this host
  bool allocated = false;          ///< a batch system or a host file says where ranks run
};

/// mpirun with its flags, then `program`.
std::vector<std::string> mpirun_command(const MpirunOptions& options,
                                        const std::vector<std::string>& program);

/// Whether `extra`, or a batch system's allocation in the environment, says where ranks
/// run.
bool hosts_are_given(const std::vector<std::string>& extra);

class MpiJob {
 public:
  /// Starts the command in a process group of its own, without stdin. If this process
  /// dies, mpirun is told to end. From now on this process inherits the orphans of its
  /// descendants; it must have no other children. Error when there is no such program
  /// on PATH.
  explicit MpiJob(const std::vector<std::string>& command);
  /// Ends what still runs.
  ~MpiJob();
  MpiJob(const MpiJob&) = delete;
  MpiJob& operator=(const MpiJob&) = delete;

  /// Passes on what the job prints on stderr, for up to `time`; false once mpirun has
  /// ended and nothing of the job is left on this host.
  bool run_for(std::chrono::milliseconds time);

  /// Sends a signal to mpirun, which forwards SIGUSR1 and SIGUSR2 to the ranks and ends
  /// them on SIGTERM.
  void send_signal(int signal);

  /// Sends SIGTERM to mpirun and, a moment later, SIGKILL to it and to every process of
  /// the job on this host, stopped ones too. Returns when none is left.
  void end();

  // How the job ended; valid once run_for() has returned false, or after end().
  /// The exit code as a shell gives it: 128 + the number where a signal ended the job.
  int exit_code() const { return exit_code_; }
  /// What the user should read: the first error line of a rank, or how mpirun says that
  /// a rank ended, or the first lines that mpirun says itself.
  const std::string& cause() const { return cause_; }
  /// True when the end came from outside: mpirun or a rank was killed, not by an error
  /// of its own.
  bool killed() const { return killed_; }

  /// True once a rank has shown itself, by a line on stderr or by how it ended.
  bool rank_seen() const { return rank_seen_; }
  pid_t pid() const { return pid_; }
  /// Whether mpirun itself is stopped now (SIGSTOP, a debugger).
  bool stopped() const;

 private:
  void read_stderr();
  void take_line(const std::string& line);
  void take_prose(const std::string& line);
  bool reap(bool block);
  void end_orphans();

  pid_t pid_ = -1;
  int stderr_ = -1;
  bool ended_ = false;
  int exit_code_ = 0;
  bool killed_ = false;
  bool rank_seen_ = false;
  bool announced_ = false;  // cause_ only says that a fault was injected
  std::string line_, cause_;
  std::string prose_;  // of mpirun
  int prose_lines_ = 0;
  bool in_block_ = false;  // of mpirun, between two lines of dashes
};

}  // namespace orrery::launch
