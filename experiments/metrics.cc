#include "experiments/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/log.h"
#include "proto/event.pb.h"

namespace orrery::experiments {
namespace {

constexpr std::string_view kValidation = "val";
/// What a line holds beside metrics.
constexpr std::array<std::string_view, 4> kLineKeys = {"step", "stage", "stage_step", "time"};

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

constexpr std::array<uint32_t, 256> make_crc32c_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}

/// TFRecord's masked CRC-32C.
uint32_t masked_crc32c(const std::string& bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc32c_table();
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes)
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 0xFFu];
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

template <class T>
std::string raw_bytes(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

constexpr std::string_view kEventPrefix = "events.out.tfevents.";

/// Of a folder's event files the one that TensorBoard reads last.
struct NewestEvents {
  std::filesystem::path path;
  int64_t time = 0;  ///< in its name; 0: there is none
};

NewestEvents newest_events(const std::filesystem::path& folder) {
  NewestEvents newest;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kEventPrefix)) continue;
    int64_t time = 0;
    std::from_chars(name.data() + kEventPrefix.size(), name.data() + name.size(), time);
    if (newest.time == 0 ||
        std::pair(time, name) > std::pair(newest.time, newest.path.filename().string()))
      newest = {entry.path(), std::max<int64_t>(time, 1)};
  }
  return newest;
}

/// The step of an event file's last whole record. With its own and the files before it
/// TensorBoard has what was before that step, as a file begins with all that those
/// lack. 0 when it cannot be read.
int64_t last_event_step(const std::filesystem::path& path) {
  constexpr std::streamoff kHead = 12,
                           kTail = 4;  // a length with its checksum; the record's checksum
  constexpr int64_t kLargest = 1 << 28;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff end = file.tellg();
  std::streamoff last = -1;
  int64_t size = 0, last_size = 0;
  for (std::streamoff at = 0; at + kHead <= end; at += kHead + size + kTail) {
    char length[sizeof size];
    if (!file.seekg(at) || !file.read(length, sizeof length)) break;
    std::memcpy(&size, length, sizeof size);
    if (size < 0 || size > kLargest || at + kHead + size + kTail > end) break;
    last = at + kHead;
    last_size = size;
  }
  if (last < 0) return 0;
  file.clear();
  std::string record(last_size, '\0');
  proto::Event event;
  const bool read =
      file.seekg(last) && file.read(record.data(), last_size) && event.ParseFromString(record);
  return read ? event.step() : 0;
}

/// A line of an earlier metrics.jsonl that stays.
struct KeptLine {
  int64_t step = 0;
  std::string text;
};

/// Without lines torn by a crash, and of what will be done again. Of two with one step
/// and stage (older programs wrote such) the later stays.
std::vector<KeptLine> kept_lines(const std::filesystem::path& path, const MetricsResume& resume) {
  std::vector<KeptLine> kept;
  std::map<std::pair<int64_t, std::string>, size_t> seen;
  std::ifstream old(path);
  for (std::string line; std::getline(old, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object() || !row.contains("step") || !row["step"].is_number_integer()) continue;
    const int64_t step = row["step"];
    const std::string stage =
        row.contains("stage") && row["stage"].is_string() ? row["stage"].get<std::string>() : "";
    // At step 0 there are but validations, of SFT's rows too.
    const bool validation = stage == kValidation || step == 0;
    if (step > resume.step || (step == resume.step && validation && resume.validates_again))
      continue;
    const auto [at, is_new] = seen.try_emplace({step, stage}, kept.size());
    if (!is_new) kept[at->second].text.clear();
    at->second = kept.size();
    kept.push_back({step, line + "\n"});
  }
  std::erase_if(kept, [](const KeptLine& line) { return line.text.empty(); });
  return kept;
}

/// The numbers of a line's object; null stands for what JSON does not have.
Metrics metrics_of(const nlohmann::json& row) {
  Metrics metrics;
  for (const auto& [name, value] : row.items()) {
    if (std::ranges::find(kLineKeys, name) != kLineKeys.end()) continue;
    if (value.is_number()) metrics[name] = value;
    if (value.is_null()) metrics[name] = std::nan("");
  }
  return metrics;
}

}  // namespace

/// A TensorBoard event file: TFRecords of Event messages.
class MetricsWriter::EventFile {
 public:
  /// `kept`: the lines of metrics.jsonl that count. Those of step `from` and later are
  /// written again, after TensorBoard is told to forget what earlier files hold of
  /// these steps; more of them where the files do not come so far (a run that went on
  /// without TensorBoard), all where there is no file.
  EventFile(const std::filesystem::path& folder, int64_t from, std::span<const KeptLine> kept) {
    std::filesystem::create_directories(folder);
    const NewestEvents newest = newest_events(folder);
    from = newest.time == 0 ? 0 : std::min(from, last_event_step(newest.path));
    // TensorBoard reads the files in the order of their names.
    const int64_t now = wall_time(), time = std::max(now, newest.time + 1);
    char host[256] = "host";
    ::gethostname(host, sizeof host - 1);
    file_.open(folder / fmt::format("{}{}.{}.{}", kEventPrefix, time, host, ::getpid()),
               std::ios::binary);
    proto::Event version;
    version.set_file_version("brain.Event:2");
    write(version, wall_time());
    proto::Event start;
    start.set_step(from);
    start.mutable_session_log()->set_status(proto::SessionLog::START);
    write(start, wall_time());
    for (const KeptLine& line : kept) {
      if (line.step < from) continue;
      const auto row = nlohmann::json::parse(line.text);
      scalars(line.step, metrics_of(row), row.value("time", wall_time()));
    }
  }

  void scalars(int64_t step, const Metrics& metrics, double time) {
    proto::Event event;
    event.set_step(step);
    for (const auto& [name, value] : metrics) {
      auto* entry = event.mutable_summary()->add_value();
      entry->set_tag(name);
      entry->set_simple_value(value);
    }
    write(event, time);
  }

 private:
  void write(proto::Event& event, double time) {
    event.set_wall_time(time);
    const std::string record = event.SerializeAsString();
    const std::string length = raw_bytes<uint64_t>(record.size());
    file_ << length << raw_bytes(masked_crc32c(length)) << record
          << raw_bytes(masked_crc32c(record));
    file_.flush();
  }
  std::ofstream file_;
};

MetricsWriter::MetricsWriter(const std::filesystem::path& run_dir, const MetricsResume& resume,
                             bool tensorboard) {
  const std::filesystem::path path = run_dir / "metrics.jsonl";
  path_ = path.string();
  const std::vector<KeptLine> kept = kept_lines(path, resume);
  std::string text;
  for (const KeptLine& line : kept) text += line.text;
  write_file_atomic(path, text);
  jsonl_.open(path, std::ios::app);
  // A line goes to metrics.jsonl first, so that a crash may have kept the last ones
  // from TensorBoard: those of the checkpoint's own step are written again.
  const std::filesystem::path folder = run_dir / "tensorboard";
  const int64_t from = resume.older_program ? 0 : std::max<int64_t>(resume.step, 0);
  if (tensorboard) {
    events_ = std::make_unique<EventFile>(folder, from, kept);
  } else if (std::filesystem::is_directory(folder) && newest_events(folder).time > 0) {
    // What earlier files hold of later steps is not of this run any more; one that
    // writes events again fills in what is missing from here on.
    EventFile(folder, from, {});
  }
}

MetricsWriter::~MetricsWriter() = default;

void MetricsWriter::write(int64_t step, const std::string& stage, int64_t stage_step,
                          const Metrics& metrics) {
  const double time = wall_time();
  nlohmann::ordered_json row;
  row["step"] = step;
  row["stage"] = stage;
  row["stage_step"] = stage_step;
  row["time"] = time;
  for (const auto& [name, value] : metrics) {
    if (std::isfinite(value)) {
      row[name] = value;
    } else {
      row[name] = nullptr;  // JSON has no NaN
    }
  }
  const std::string line = row.dump() + "\n";
  const FaultAction fault = fault_point(FaultPoint::kMetricsWrite);
  if (fault == FaultAction::kTorn) {
    jsonl_ << line.substr(0, line.size() / 2) << std::flush;
    fault_crash();
  }
  if (fault == FaultAction::kNoSpace) jsonl_.setstate(std::ios::badbit);
  jsonl_ << line << std::flush;
  if (!jsonl_) {
    spdlog::warn("cannot append to {} (disk full?); this step's metrics are lost, training goes on",
                 path_);
    jsonl_.clear();
  }
  if (events_) events_->scalars(step, metrics, time);
}

void Summary::add(double value, int64_t times) {
  if (times == 0) return;
  const bool first = count_ == 0;
  if (first || std::isnan(value) || value < min_) min_ = value;
  if (first || std::isnan(value) || value > max_) max_ = value;
  sum_ += value * times;
  count_ += times;
}

void Summary::write(Metrics& metrics, const std::string& name) const {
  if (count_ == 0) return;
  metrics[name + "/mean"] = mean();
  metrics[name + "/min"] = min_;
  metrics[name + "/max"] = max_;
}

std::string format_duration(double seconds) {
  const int64_t total = std::llround(std::max(0.0, seconds));
  const int64_t hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, rest)
                   : fmt::format("{}:{:02}", minutes, rest);
}

std::string format_count(double value) {
  if (value >= 1e6) return fmt::format("{:.1f}M", value / 1e6);
  if (value >= 1e3) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{:.1f}", value);
}

double peak_memory_gib() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  constexpr double kKibibytes = 1 << 20;  // of a GiB
  return usage.ru_maxrss / kKibibytes;
}

}  // namespace orrery::experiments
