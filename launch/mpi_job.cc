#include "launch/mpi_job.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>
#include <thread>

#include "core/error.h"
#include "core/pipes.h"
#include "core/process.h"
#include "launch/stop_signal.h"
#include "launch/supervision.h"

namespace orrery::launch {
namespace {

using Clock = std::chrono::steady_clock;

/// mpirun ends its ranks within a second of SIGTERM. When it does not, it is ended
/// together with them.
constexpr auto kPatience = std::chrono::seconds(4);
/// A process that SIGKILL does not end waits for hardware. The restart does not wait
/// for it.
constexpr auto kOrphanPatience = std::chrono::seconds(15);

/// The most lines of mpirun's own words that make up a cause.
constexpr int kProseLines = 4;
constexpr std::string_view kNotStarted = "orrery: mpirun could not be started";

bool is_program_fault(int signal) {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL ||
         signal == SIGABRT;
}

std::string find_on_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::string folders = path != nullptr ? path : "";
  for (size_t at = 0; at <= folders.size();) {
    const size_t end = std::min(folders.find(':', at), folders.size());
    const std::filesystem::path file =
        std::filesystem::path(folders.substr(at, end - at)) / program;
    if (::access(file.c_str(), X_OK) == 0) return file.string();
    at = end + 1;
  }
  fail("{} is not on PATH; install Open MPI (Debian: openmpi-bin) or load its module", program);
}

/// Children of this process.
std::vector<pid_t> children() {
  std::vector<pid_t> found;
  const pid_t self = getpid();
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", code)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const pid_t pid = std::atoi(name.c_str());
    const std::optional<ProcessStat> stat = process_stat(pid);
    if (stat && stat->parent == self) found.push_back(pid);
  }
  return found;
}

}  // namespace

bool hosts_are_given(const std::vector<std::string>& extra) {
  for (const char* name : {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "PE_HOSTFILE"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return std::ranges::any_of(extra, [](const std::string& word) {
    for (const char* flag :
         {"host", "hostfile", "machinefile", "default-hostfile", "rankfile", "H"}) {
      if (word == std::string("-") + flag || word == std::string("--") + flag) return true;
    }
    return false;
  });
}

std::vector<std::string> mpirun_command(const MpirunOptions& options,
                                        const std::vector<std::string>& program) {
  const auto given = [&](const std::string& flag) {
    return std::ranges::find(options.extra, flag) != options.extra.end();
  };
  std::vector<std::string> command = {"mpirun", "-n", std::to_string(options.ranks)};
  // Open MPI binds jobs of one or two ranks to one core each.
  if (!given("--bind-to") && !given("-bind-to"))
    command.insert(command.end(), {"--bind-to", "none"});
  // This way of copying between processes needs ptrace rights. Containers withhold
  // them, which leads to messages and failed calls.
  command.insert(command.end(), {"--mca", "btl_vader_single_copy_mechanism", "none"});
  if (!options.allocated) {
    // Without an allocation a host has as many places as cores; hardware threads do not
    // count.
    command.emplace_back(options.ranks > options.cpus ? "--oversubscribe" : "--use-hwthread-cpus");
  }
  command.insert(command.end(), {"-x", kSupervision});
  command.insert(command.end(), options.extra.begin(), options.extra.end());
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

MpiJob::MpiJob(const std::vector<std::string>& command) {
  const std::string program = find_on_path(command.front());
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  if (geteuid() == 0) {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
  }
  // Ranks outlive a killed mpirun for a moment, and stopped ones stay for ever. They
  // become our children, so that we can end them.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail("cannot make a pipe: {}", std::strerror(errno));
  const pid_t self = getpid();
  pid_ = fork();
  if (pid_ < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    fail("cannot start {}: {}", program, std::strerror(errno));
  }
  if (pid_ == 0) {  // only async-signal-safe calls until exec
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != self) _exit(127);
    const int null =
        ::open("/dev/null", O_RDONLY);  // a background group must not read the terminal
    if (null >= 0) dup2(null, STDIN_FILENO);
    dup2(ends[1], STDERR_FILENO);
    reset_stop_signals();
    end_on_closed_pipes();
    execv(program.c_str(), words.data());
    [[maybe_unused]] const ssize_t written =
        ::write(STDERR_FILENO, kNotStarted.data(), kNotStarted.size());
    [[maybe_unused]] const ssize_t ended = ::write(STDERR_FILENO, "\n", 1);
    _exit(127);
  }
  setpgid(pid_, pid_);  // whichever of the two comes first
  ::close(ends[1]);
  stderr_ = ends[0];
  fcntl(stderr_, F_SETFL, O_NONBLOCK);
}

MpiJob::~MpiJob() {
  end();
  if (stderr_ >= 0) ::close(stderr_);
}

bool MpiJob::run_for(std::chrono::milliseconds time) {
  if (ended_) return false;
  pollfd wait{stderr_, POLLIN, 0};
  if (stderr_ < 0) {
    std::this_thread::sleep_for(time);
  } else {
    poll(&wait, 1, time.count());
    read_stderr();
  }
  if (!reap(/*block=*/false)) return true;
  end_orphans();
  read_stderr();
  return false;
}

void MpiJob::send_signal(int signal) {
  if (!ended_) kill(pid_, signal);
}

bool MpiJob::stopped() const {
  if (ended_) return false;
  const std::optional<ProcessStat> stat = process_stat(pid_);
  return stat && stat->stopped();
}

void MpiJob::end() {
  if (ended_) return;
  kill(pid_, SIGTERM);
  kill(pid_, SIGCONT);
  const auto deadline = Clock::now() + kPatience;
  while (run_for(std::chrono::milliseconds(20))) {
    if (Clock::now() < deadline) continue;
    kill(-pid_, SIGKILL);
    reap(/*block=*/true);
    end_orphans();
    read_stderr();
    return;
  }
}

bool MpiJob::reap(bool block) {
  int status = 0;
  pid_t got = 0;
  do {
    got = waitpid(pid_, &status, block ? 0 : WNOHANG);
  } while (got < 0 && errno == EINTR);
  if (got == 0) return false;
  ended_ = true;
  if (got < 0) {
    exit_code_ = kExitFailure;
  } else if (WIFSIGNALED(status)) {
    exit_code_ = 128 + WTERMSIG(status);
    killed_ = true;
    cause_ = fmt::format("mpirun was killed by signal {} ({})", WTERMSIG(status),
                         strsignal(WTERMSIG(status)));
  } else {
    exit_code_ = WEXITSTATUS(status);
  }
  return true;
}

void MpiJob::end_orphans() {
  const auto deadline = Clock::now() + kOrphanPatience;
  while (Clock::now() < deadline) {
    const std::vector<pid_t> left = children();
    if (left.empty()) break;
    for (const pid_t pid : left) kill(pid, SIGKILL);
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (exit_code_ != kExitOk && cause_.empty()) {
    cause_ = !prose_.empty() ? prose_ : fmt::format("mpirun ended with exit code {}", exit_code_);
  }
}

void MpiJob::read_stderr() {
  if (stderr_ < 0) return;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(stderr_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    if (n == 0) {  // nobody is left to write
      ::close(stderr_);
      stderr_ = -1;
      return;
    }
    std::fwrite(buffer, 1, n, stderr);
    for (const char c : std::string_view(buffer, n)) {
      if (c != '\n') {
        if (line_.size() < 4096) line_ += c;
        continue;
      }
      take_line(line_);
      line_.clear();
    }
  }
}

void MpiJob::take_line(const std::string& line) {
  constexpr std::string_view kOurs = "orrery: ";
  int rank = 0, pid = 0, signal = 0;
  char node[256];
  // Open MPI 4 and 5 begin this sentence differently.
  const size_t at = line.find("process rank ");
  if (at != std::string::npos &&
      std::sscanf(line.c_str() + at,
                  "process rank %d with PID %d on node %255s exited on signal %d", &rank, &pid,
                  node, &signal) == 4) {
    killed_ = !is_program_fault(signal);
    rank_seen_ = true;
    // What other ranks say after it is a consequence.
    if (killed_ || cause_.empty() || announced_) {
      announced_ = false;
      cause_ = fmt::format("rank {} on {} was killed by signal {} ({})", rank, node, signal,
                           strsignal(signal));
    }
    return;
  }
  if (line.starts_with(kOurs)) {
    rank_seen_ = rank_seen_ || line != kNotStarted;
    if (line.starts_with("orrery: asked to stop") || (!cause_.empty() && !announced_)) return;
    // When an injected fault leads to an error, the error says more.
    const bool announcement =
        line.find(" injected at ") != std::string::npos && !line.ends_with("asks");
    if (announcement && announced_) return;
    announced_ = announcement;
    cause_ = line.substr(kOurs.size());
  } else {
    take_prose(line);
  }
}

void MpiJob::take_prose(const std::string& line) {
  const size_t begin = line.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return;
  if (line.size() >= 10 && line.find_first_not_of('-') == std::string::npos) {
    in_block_ = !in_block_;
    if (prose_lines_ > 0) prose_lines_ = kProseLines;
    return;
  }
  unsigned hours = 0, minutes = 0, seconds = 0;
  if (std::sscanf(line.c_str(), "%2u:%2u:%2u ", &hours, &minutes, &seconds) == 3) {  // a rank's log
    rank_seen_ = true;
    in_block_ = false;
    return;
  }
  // Once ranks run, a line outside a block may be the rest of what a rank logged.
  if (prose_lines_ >= kProseLines || (rank_seen_ && !in_block_)) return;
  prose_ += (prose_lines_ > 0 ? " " : "") +
            line.substr(begin, line.find_last_not_of(" \t\r") + 1 - begin);
  ++prose_lines_;
}

}  // namespace orrery::launch
