// The parts of foreign_keys(), a file for each program (foreign_verl.cc, ...).
#pragma once

#include <span>

#include "config/foreign_keys.h"

namespace orrery::config {

std::span<const ForeignKey> verl_keys();
std::span<const ForeignKey> trl_keys();
std::span<const ForeignKey> openrlhf_keys();
std::span<const ForeignKey> nemo_rl_keys();

}  // namespace orrery::config
