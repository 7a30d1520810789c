#include "core/log.h"

#include <spdlog/sinks/stdout_sinks.h>

namespace orrery {

void init_log(int rank, int ranks, const std::string& level) {
  auto logger =
      std::make_shared<spdlog::logger>("orrery", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern(ranks > 1 ? fmt::format("%H:%M:%S %l [rank {}] %v", rank) : "%H:%M:%S %l %v");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace orrery
