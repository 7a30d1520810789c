#include "core/pipes.h"

#include <poll.h>

#include <csignal>

namespace orrery {

void end_on_closed_pipes() { std::signal(SIGPIPE, SIG_DFL); }

void ignore_closed_pipes() { std::signal(SIGPIPE, SIG_IGN); }

bool reader_is_gone(int fd) {
  pollfd look{fd, 0, 0};
  return ::poll(&look, 1, 0) == 1 && (look.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace orrery
