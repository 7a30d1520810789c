// Logging to stderr through spdlog. stdout carries results only. Thread-safe.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace orrery {

/// Sets the pattern and prefixes each line with "[rank R]" when ranks > 1. Level:
/// trace, debug, info, warn, error, off.
void init_log(int rank, int ranks, const std::string& level = "info");

}  // namespace orrery
