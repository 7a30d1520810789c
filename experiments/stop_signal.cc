#include "experiments/stop_signal.h"

#include <unistd.h>

#include <csignal>
#include <string_view>

namespace orrery {
namespace {

// A signal handler can reach nothing but a global of this type.
volatile std::sig_atomic_t g_stop = 0;

void on_signal(int signal) {
  if (g_stop != 0 && signal == SIGINT) {
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  if (g_stop == 0) {  // write() is all that a handler may call
    constexpr std::string_view kText =
        "orrery: asked to stop: finishing the step, then saving (Ctrl-C again ends at once)\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kText.data(), kText.size());
  }
  g_stop = 1;
}

}  // namespace

void install_stop_handlers() {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  }
}

bool stop_requested() { return g_stop != 0; }

bool agree_to_stop(Communicator& comm) {
  double flag[1] = {stop_requested() ? 1.0 : 0.0};
  comm.all_reduce_max(flag);
  return flag[0] > 0;
}

}  // namespace orrery
