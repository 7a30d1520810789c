// run_dir/status.json: what every rank was doing a moment ago. Rank 0's watchdog
// rewrites it about once per second. `orrery launch` and people read it, also when rank
// 0 itself stands still.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "proto/messages.pb.h"

namespace orrery::launch {

inline constexpr char kStatusFile[] = "status.json";

struct Heartbeat {
  std::vector<proto::RankStatus> ranks;
  std::vector<double> ages;  ///< of each rank's status, when the file was written
  int64_t step = 0;          ///< SFT and RL steps done

  /// Reads what write_heartbeat wrote; nothing when `text` is anything else.
  static std::optional<Heartbeat> parse(const std::string& text);
};

/// The state of the run as the file gives it.
struct RunState {
  /// "running", "done", "stopped" (saved as asked, can be resumed) or "failed".
  std::string name = "running";
  std::optional<int> exit_code;  ///< at the end
  std::string error;             ///< of "failed": what the user read, one line
};

/// Replaces the file by a rename. It is not synced to disk, since it is of use only
/// while the host is up. False when it could not be replaced.
bool write_heartbeat(const std::filesystem::path& path, std::span<const proto::RankStatus> ranks,
                     std::span<const double> ages, const RunState& state = {});

/// Replaces the state in an existing file; what the ranks said last stays. When
/// exit_code is 0, a final state that a rank has written stays too. False when the file
/// could not be replaced.
bool write_final_state(const std::filesystem::path& path, const RunState& state);

/// Writes the state "failed"; called by the rank that ends a job. Where there is a
/// file, what the ranks said last stays. False when the file could not be written.
bool write_failure(const std::filesystem::path& path, int exit_code, const std::string& error);

/// Whether the file says "failed".
bool says_failed(const std::filesystem::path& path);

/// Called before a job's first heartbeat: replaces what the file says of an earlier
/// job's failure, so that "failed" from now on means this job.
void forget_failure(const std::filesystem::path& path);

/// One line that names the ranks that hold the job up, their phases and requests, as of
/// `file_age` seconds after the heartbeat was written. Empty while no rank is beyond a
/// deadline. `file_deadline` is the time in seconds without a new heartbeat, after
/// which rank 0 itself stands still; `rank_deadline` is the time without word or
/// progress from a rank while rank 0 goes on; 0 means never. The line says how old a
/// phase is where that is more than 2 s.
std::string diagnose(const Heartbeat& heartbeat, double file_age, double file_deadline,
                     double rank_deadline);

}  // namespace orrery::launch
