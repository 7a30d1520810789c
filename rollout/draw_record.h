// With which weights and how a file's samples were drawn: what `orrery audit` needs to
// draw them again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/sampling.h"

namespace orrery::rollout {

struct DrawRecord {
  uint64_t seed = 0;  ///< of sample_uniform() (rollout/engine.h)
  kernels::SamplingParams sampling;
  /// The steps that the weights had behind them, and their checksum
  /// (kernels/reductions.h, over the flat parameters): "sums:" and 32 digits.
  uint64_t weight_version = 0;
  std::string weights;
};

/// As the attribute `drawn` of a rollout file has it, a JSON object.
std::string draw_record_text(const DrawRecord& record);
/// Of such a text. Error that begins with `where` for another.
DrawRecord draw_record_from_text(std::string_view text, const std::string& where);

}  // namespace orrery::rollout
