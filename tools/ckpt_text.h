// How `orrery ckpt` writes sizes, times, stages and tables.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "storage/manifest.h"

namespace orrery::tools {

/// "512 B", "1.4 GB": powers of 1000.
std::string size_text(int64_t bytes);
/// "2025-03-01 12:00:00 UTC"
std::string time_text(int64_t unix_time);
/// Four decimals; "-" for none.
std::string reward_text(const std::optional<double>& reward);
/// "grpo 200", "sft 600", "import"
std::string stage_text(const storage::CheckpointInfo& info);
/// The step within the stage; 0 of an imported checkpoint.
int64_t stage_step(const storage::CheckpointInfo& info);
/// The state as JSON; "{}" of an imported checkpoint.
std::string state_text(const storage::CheckpointInfo& info);
/// "[64, 576]"
std::string shape_text(const std::vector<int64_t>& shape);

/// A number for JSON, which has no infinity.
nlohmann::ordered_json number_json(double value);

/// Prints rows under a heading, columns as wide as their widest cell; the columns named
/// in `left` are flush left.
void print_table(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& left);
/// Prints every line two columns to the right.
void print_indented(const std::string& text);

}  // namespace orrery::tools
