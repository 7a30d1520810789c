#include "experiments/stop_signal.h"

#include <unistd.h>

#include <csignal>
#include <string_view>

namespace orrery {
namespace {

// A signal handler can reach nothing but a global of this type.
volatile std::sig_atomic_t g_stop = 0;
volatile std::sig_atomic_t g_tell = 0;

void on_signal(int signal) {
  if (g_stop != 0 && signal == SIGINT) {
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  if (g_stop == 0 && g_tell != 0) {  // write() is all that a handler may call
    // After a crash mpirun sends SIGTERM to the ranks that are left: the name says that nobody need have
    // asked.
    const std::string_view text =
        signal == SIGTERM ? "orrery: asked to stop by SIGTERM: finishing the step, then saving\n"
        : signal == SIGINT
            ? "orrery: asked to stop by SIGINT: finishing the step, then saving (Ctrl-C again ends at once)\n"
            : "orrery: asked to stop by SIGUSR1: finishing the step, then saving\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  }
  g_stop = 1;
}

}  // namespace

void handle_stop_signals(void (*handler)(int)) {
  for (const int signal : kStopSignals) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  }
}

void install_stop_handlers(bool tell) {
  g_tell = tell ? 1 : 0;
  handle_stop_signals(on_signal);
}

bool stop_requested() { return g_stop != 0; }

bool agree_to_stop(Communicator& comm) {
  double flag[1] = {stop_requested() ? 1.0 : 0.0};
  comm.all_reduce_max(flag);
  return flag[0] > 0;
}

}  // namespace orrery
