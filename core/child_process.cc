#include "core/child_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include "core/error.h"

extern char** environ;

namespace orrery {
namespace {

/// Our own descriptors have higher numbers than those that a child is given, so that
/// giving it one overwrites none of ours.
constexpr int kLowest = 10;
/// The number of the lifeline in the child.
constexpr int kLifeline = 3;

/// The guard reads the lifeline, a pipe to which nobody ever writes. Reading ends when
/// the process that holds the other side ends. The command itself does not have the
/// lifeline.
constexpr const char* kScript =
    "{ read -r _ <&3; kill -s KILL 0; } </dev/null >/dev/null 2>&1 &\n"
    "exec 3<&-\n"
    "eval \"$1\"\n";

/// With these variables, a program that loads an MPI library (mpi4py) would take itself
/// for this very rank.
constexpr std::array<std::string_view, 4> kHiddenVariables = {"OMPI_", "PMIX_", "PRTE_", "PMI_"};

struct Pipe {
  Descriptor read, write;
};

Descriptor high(int fd) {
  const int moved = ::fcntl(fd, F_DUPFD_CLOEXEC, kLowest);
  const int error = errno;
  ::close(fd);
  if (moved < 0) fail("no descriptor is left for the pipe of a process: {}", std::strerror(error));
  return Descriptor(moved);
}

Pipe make_pipe() {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) {
    fail("no pipe to a process can be made: {} (ulimit -n says how many descriptors there may be)",
         std::strerror(errno));
  }
  Pipe pipe;
  Descriptor second(fds[1]);
  pipe.read = high(fds[0]);
  pipe.write = high(second.release());
  return pipe;
}

void never_block(const Descriptor& fd) {
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
#ifdef F_SETPIPE_SZ
  constexpr int kPipeBytes = 1 << 20;  // for fewer waits; the system may refuse it
  ::fcntl(fd.get(), F_SETPIPE_SZ, kPipeBytes);
#endif
}

std::vector<char*> child_environment() {
  std::vector<char*> variables;
  for (char** at = environ; *at != nullptr; ++at) {
    bool hidden = false;
    for (const std::string_view prefix : kHiddenVariables) {
      hidden = hidden || std::string_view(*at).starts_with(prefix);
    }
    if (!hidden) variables.push_back(*at);
  }
  variables.push_back(nullptr);
  return variables;
}

/// posix_spawn's arguments, freed at the end.
struct SpawnSetup {
  posix_spawn_file_actions_t files{};
  posix_spawnattr_t attributes{};
  SpawnSetup() {
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;
};

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.release();
  }
  return *this;
}

int Descriptor::release() { return std::exchange(fd_, -1); }

void Descriptor::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

ChildProcess::ChildProcess(const std::string& command) {
  Pipe in = make_pipe(), out = make_pipe(), err = make_pipe(), life = make_pipe();
  SpawnSetup setup;
  posix_spawn_file_actions_adddup2(&setup.files, in.read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&setup.files, out.write.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&setup.files, err.write.get(), STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&setup.files, life.read.get(), kLifeline);
  // Not every descriptor is closed by exec, for example not every socket of the MPI
  // library.
  posix_spawn_file_actions_addclosefrom_np(&setup.files, kLifeline + 1);
  sigset_t all, none;
  sigfillset(&all);
  sigdelset(&all, SIGKILL);
  sigdelset(&all, SIGSTOP);
  sigemptyset(&none);
  posix_spawnattr_setsigdefault(&setup.attributes, &all);
  posix_spawnattr_setsigmask(&setup.attributes, &none);
  posix_spawnattr_setpgroup(&setup.attributes, 0);
  posix_spawnattr_setflags(&setup.attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  std::string shell = "sh", option = "-c", script = kScript, name = "sh", text = command;
  std::array<char*, 6> arguments = {shell.data(), option.data(), script.data(),
                                    name.data(),  text.data(),   nullptr};
  const int error = ::posix_spawn(&pid_, "/bin/sh", &setup.files, &setup.attributes,
                                  arguments.data(), child_environment().data());
  if (error != 0) {
    pid_ = -1;
    fail("cannot start /bin/sh for '{}': {}", command, std::strerror(error));
  }
  in_ = std::move(in.write);
  out_ = std::move(out.read);
  err_ = std::move(err.read);
  life_ = std::move(life.write);
  for (const Descriptor* fd : {&in_, &out_, &err_}) never_block(*fd);
}

ChildProcess::~ChildProcess() { kill_group(); }

bool ChildProcess::ended() {
  if (ended_ || pid_ < 0) return true;
  siginfo_t info{};
  // The child is not reaped here, so that its number still names the group.
  if (::waitid(P_PID, pid_, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
    ended_ = errno == ECHILD;  // where SIGCHLD is ignored, the system keeps no status
    reaped_ = ended_;
    return ended_;
  }
  if (info.si_pid == 0) return false;
  ended_ = true;
  constexpr int kSignalled = 128;  // the shell's way to say that its command ended by a signal
  if (info.si_code != CLD_EXITED) {
    signal_ = info.si_status;
  } else if (info.si_status > kSignalled && info.si_status < kSignalled + NSIG) {
    signal_ = info.si_status - kSignalled;
  } else {
    exit_status_ = info.si_status;
  }
  return true;
}

void ChildProcess::kill_group() {
  if (pid_ < 0) return;
  ended();  // reads its status, which is lost once it is reaped
  ::kill(-pid_, SIGKILL);
  in_.close();
  out_.close();
  err_.close();
  life_.close();
  // A process in the middle of a device's work ends later; it is not worth waiting for.
  constexpr timespec kPause = {0, 1'000'000};
  constexpr int kTurns = 1000;
  for (int i = 0; i < kTurns && !reaped_; ++i) {
    const pid_t found = ::waitpid(pid_, nullptr, WNOHANG);
    reaped_ = found != 0 && !(found < 0 && errno == EINTR);
    if (!reaped_) ::nanosleep(&kPause, nullptr);
  }
  pid_ = -1;
}

std::string ChildProcess::end_text() const {
  if (exit_status_) return fmt::format("exit status {}", *exit_status_);
  if (signal_ == 0) return "a status that the system did not keep";
  const char* name = ::strsignal(signal_);
  return fmt::format("signal {} ({})", signal_, name != nullptr ? name : "unknown");
}

ssize_t write_without_signal(int fd, std::string_view bytes) {
  sigset_t pipe, before, pending;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&pending);
  const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  const ssize_t written = ::write(fd, bytes.data(), bytes.size());
  const int error = errno;
  if (written < 0 && error == EPIPE && !was_pending) {
    constexpr timespec kNow = {0, 0};
    while (::sigtimedwait(&pipe, nullptr, &kNow) < 0 && errno == EINTR) {
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return written;
}

}  // namespace orrery
