// A program that runs beside this one and is spoken to through pipes that never block.
// /bin/sh runs it in a process group of its own. It inherits nothing but its three
// pipes: signals and their mask are the system's defaults, no other file is open, and
// its environment lacks what would tell a program that it is a rank of an MPI job. When
// this process ends, by SIGKILL too, a guard in the group ends the group. (A process
// that has left the group by setsid is on its own.)
//
// Not thread-safe; a child may be started while other threads run.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

namespace orrery {

/// A descriptor that is closed at the end. Move-only.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release();
  void close();

 private:
  int fd_ = -1;
};

class ChildProcess {
 public:
  /// Starts `command`. Error when the system has no process or descriptor left; a
  /// command that is not found ends with status 127, as the shell says.
  explicit ChildProcess(const std::string& command);
  /// Kills the group, unless kill_group() has done so.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Our ends of what the program reads and writes; -1 once closed.
  int in() const { return in_.get(); }
  int out() const { return out_.get(); }
  int err() const { return err_.get(); }
  void close_in() { in_.close(); }
  void close_out() { out_.close(); }
  void close_err() { err_.close(); }

  /// The command itself has ended; what it has started may go on. Does not wait.
  bool ended();
  /// Sends SIGKILL to the whole group.
  void kill_group();
  /// The exit status; nothing when it ended by a signal, is not known or has not ended.
  std::optional<int> exit_status() const { return exit_status_; }
  /// How the process ended: "exit status 1", "signal 9 (Killed)". Valid once it has.
  std::string end_text() const;

 private:
  Descriptor in_, out_, err_, life_;
  pid_t pid_ = -1;
  bool ended_ = false, reaped_ = false;
  std::optional<int> exit_status_;
  int signal_ = 0;
};

/// As write(2), except that a reader who is gone gives EPIPE and never a signal,
/// whatever SIGPIPE does in this process.
ssize_t write_without_signal(int fd, std::string_view bytes);

}  // namespace orrery
