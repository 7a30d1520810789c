#include "kernels/cpu/scratch.h"

namespace orrery::kernels::cpu {

Arena& scratch_of_this_thread() {
  static thread_local Arena arena;
  return arena;
}

ScratchScope::ScratchScope() : arena_(scratch_of_this_thread()), mark_(arena_.mark()) {
  if (mark_.chunk == 0 && mark_.offset == 0) arena_.reset();
}

}  // namespace orrery::kernels::cpu
