#include "core/error.h"

namespace orrery {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  throw Error(fmt::format("internal check failed at {}:{}: {} ({}); please report this", file, line,
                          condition, message));
}

}  // namespace orrery
