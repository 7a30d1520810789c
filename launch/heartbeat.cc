#include "launch/heartbeat.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>

#include "comm/watchdog.h"
#include "core/error.h"
#include "core/file.h"
#include "core/process.h"

namespace orrery::launch {
namespace {

/// For so many seconds, what a rank said counts as new.
constexpr double kNews = 2;

/// "; its process 123 is stopped" when the kernel says so.
std::string process_state(const proto::RankStatus& rank) {
  if (rank.pid() <= 0 || rank.host() != host_name()) return "";
  const std::optional<ProcessStat> stat = process_stat(rank.pid());
  if (!stat) return fmt::format("; its process {} is gone", rank.pid());
  if (stat->stopped()) return fmt::format("; its process {} is stopped", rank.pid());
  if (stat->state == 'D')
    return fmt::format("; its process {} waits for a disk or network file system", rank.pid());
  if (stat->state == 'Z') return fmt::format("; its process {} has ended", rank.pid());
  return "";
}

double rounded(double seconds) { return std::round(seconds * 1000) / 1000; }

double unix_time() {
  return rounded(
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
}

bool replace(const std::filesystem::path& path, const nlohmann::ordered_json& json) {
  try {
    write_file_atomic(
        path, json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n",
        Durability::kVisible);
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// The file's object; nothing when there is no such file, or it is not one of ours.
std::optional<nlohmann::ordered_json> read_object(const std::filesystem::path& path) {
  try {
    auto json = nlohmann::ordered_json::parse(read_file(path));
    if (json.is_object()) return json;
  } catch (const Error&) {
  } catch (const nlohmann::json::exception&) {
  }
  return std::nullopt;
}

void set_state(nlohmann::ordered_json& json, const RunState& state) {
  json["time"] = unix_time();
  json["state"] = state.name;
  json["exit_code"] = nullptr;
  if (state.exit_code) json["exit_code"] = *state.exit_code;
  if (state.exit_code == 0) {
    json["error"] = nullptr;
  } else if (!state.error.empty()) {
    json["error"] = state.error;
  }
}

/// " as of 5 s before" for what is no longer new.
std::string as_of(double age) {
  return age > kNews ? fmt::format(" as of {:.0f} s before", age) : "";
}

}  // namespace

std::optional<Heartbeat> Heartbeat::parse(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    Heartbeat heartbeat;
    heartbeat.step = json.at("step");
    for (const auto& entry : json.at("ranks")) {
      proto::RankStatus status;
      status.set_phase(entry.at("phase").get<std::string>());
      status.set_phase_seconds(entry.at("phase_seconds"));
      status.set_still_seconds(entry.at("still_seconds"));
      status.set_waiting_in(entry.at("waiting_in").get<std::string>());
      status.set_waiting_seconds(entry.at("waiting_seconds"));
      status.set_leaving(entry.at("leaving"));
      status.set_pid(entry.at("pid"));
      status.set_host(entry.at("host").get<std::string>());
      heartbeat.ages.push_back(entry.at("silent_seconds"));
      heartbeat.ranks.push_back(std::move(status));
    }
    if (heartbeat.ranks.empty()) return std::nullopt;
    return heartbeat;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

bool write_heartbeat(const std::filesystem::path& path, std::span<const proto::RankStatus> ranks,
                     std::span<const double> ages, const RunState& state) {
  nlohmann::ordered_json json = {{"time", unix_time()},
                                 {"state", state.name},
                                 {"exit_code", nullptr},
                                 {"error", nullptr},
                                 {"step", ranks[0].step()},
                                 {"stage", ranks[0].stage()},
                                 {"stage_step", ranks[0].stage_step()},
                                 {"pid", ranks[0].pid()},
                                 {"host", ranks[0].host()},
                                 {"ranks", nlohmann::ordered_json::array()}};
  for (size_t r = 0; r < ranks.size(); ++r) {
    const proto::RankStatus& status = ranks[r];
    json["ranks"].push_back({{"rank", r},
                             {"phase", status.phase()},
                             {"phase_seconds", rounded(status.phase_seconds())},
                             {"still_seconds", rounded(status.still_seconds())},
                             {"waiting_in", status.waiting_in()},
                             {"waiting_seconds", rounded(status.waiting_seconds())},
                             {"silent_seconds", rounded(ages[r])},
                             {"leaving", status.leaving()},
                             {"pid", status.pid()},
                             {"host", status.host()}});
  }
  if (state.exit_code) json["exit_code"] = *state.exit_code;
  return replace(path, json);
}

bool write_final_state(const std::filesystem::path& path, const RunState& state) {
  auto json = read_object(path);
  if (!json) return false;
  if (state.exit_code == 0 && json->value("exit_code", nlohmann::ordered_json()) == 0) return true;
  set_state(*json, state);
  return replace(path, *json);
}

bool write_failure(const std::filesystem::path& path, int exit_code, const std::string& error) {
  nlohmann::ordered_json json = read_object(path).value_or(nlohmann::ordered_json::object());
  set_state(json, {"failed", exit_code, error});
  // Rank 0 may be about to replace the file by a temporary file of its own.
  std::filesystem::path beside = path;
  beside += ".failed";
  if (!replace(beside, json)) return false;
  std::error_code code;
  std::filesystem::rename(beside, path, code);
  return !code;
}

bool says_failed(const std::filesystem::path& path) {
  const auto json = read_object(path);
  return json && json->value("state", nlohmann::ordered_json()) == "failed";
}

void forget_failure(const std::filesystem::path& path) {
  if (!says_failed(path)) return;
  nlohmann::ordered_json json;
  set_state(json, {});
  json["error"] = nullptr;
  replace(path, json);
}

std::string diagnose(const Heartbeat& heartbeat, double file_age, double file_deadline,
                     double rank_deadline) {
  if (file_deadline > 0 && file_age > file_deadline) {
    std::string line = fmt::format("rank 0 has been silent for {:.0f} s, last in '{}'{}", file_age,
                                   heartbeat.ranks[0].phase(), process_state(heartbeat.ranks[0]));
    for (size_t r = 1; r < heartbeat.ranks.size(); ++r) {
      line += fmt::format("; rank {} was in '{}'{}{}", r, heartbeat.ranks[r].phase(),
                          as_of(heartbeat.ages[r] + file_age), process_state(heartbeat.ranks[r]));
    }
    return line;
  }
  if (rank_deadline <= 0) return "";
  std::vector<double> ages = heartbeat.ages;
  for (double& age : ages) age += file_age;
  double stuck = 0;
  std::string line = comm::watchdog_line(heartbeat.ranks, ages, rank_deadline, stuck);
  for (size_t r = 0; r < ages.size(); ++r) {
    if (ages[r] > rank_deadline) line += process_state(heartbeat.ranks[r]);
  }
  if (!line.empty() && file_age > kNews) line += fmt::format(" (all{})", as_of(file_age));
  return line;
}

}  // namespace orrery::launch
