// run_dir/status.json: what every rank was doing a moment ago. Rank 0's watchdog
// rewrites it about once a second; `orrery launch` and people read it, also when rank 0
// itself stands still.
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

  /// `text` as write_heartbeat wrote it; nothing when it is anything else.
  static std::optional<Heartbeat> parse(const std::string& text);
};

/// How the run stands, as the file says it.
struct RunState {
  std::string name =
      "running";  ///< "running", "done", "stopped" (saved as asked, can be resumed) or "failed"
  std::optional<int> exit_code;  ///< at the end
  std::string error;             ///< of "failed": what the user read, one line
};

/// Replaces the file by rename, not synced to disk: it is of use to the living only.
/// False when it could not.
bool write_heartbeat(const std::filesystem::path& path, std::span<const proto::RankStatus> ranks,
                     std::span<const double> ages, const RunState& state = {});

/// The state replaced in a file that is there already; what the ranks said last stays.
/// A final state that a rank has written stays too when exit_code is 0. False when it
/// could not.
bool write_final_state(const std::filesystem::path& path, const RunState& state);

/// The state "failed", by the rank that ends a job: what the ranks said last stays,
/// where there is a file. False when it could not.
bool write_failure(const std::filesystem::path& path, int exit_code, const std::string& error);

/// Whether the file says "failed".
bool says_failed(const std::filesystem::path& path);

/// Before a job's first heartbeat: what the file says of an earlier job's failure is
/// replaced, so that from now on "failed" is said of this one.
void forget_failure(const std::filesystem::path& path);

/// One line that names the ranks that hold the job up, their phases and requests,
/// `file_age` seconds after the heartbeat was written; empty while nobody is beyond a
/// deadline. `file_deadline`: seconds without a new heartbeat, so that rank 0 itself
/// stands still; `rank_deadline`: without word or progress from a rank while rank 0
/// goes on. 0: never. Says how old a phase is where that is more than 2 s.
std::string diagnose(const Heartbeat& heartbeat, double file_age, double file_deadline,
                     double rank_deadline);

}  // namespace orrery::launch
