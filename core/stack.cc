#include "core/stack.h"

#include <pthread.h>
#include <sys/resource.h>

#include <cstdio>
#include <system_error>
#include <thread>

namespace orrery {

int run_with_enough_stack(const std::function<int()>& work) {
  rlimit limit{};
  if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= kStackBytes) return work();
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_setattr_default_np(&attributes);  // std::thread takes no size of its own
  pthread_attr_destroy(&attributes);
  int result = 0;
  try {
    std::thread thread([&] { result = work(); });
    thread.join();
  } catch (const std::system_error&) {
    return work();  // no memory for it: then as the limit allows
  }
  return result;
}

}  // namespace orrery
