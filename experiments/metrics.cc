#include "experiments/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/log.h"
#include "proto/event.pb.h"

namespace orrery {
namespace {

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
  for (const char c : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 0xFFu];
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

template <class T>
std::string raw_bytes(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

}  // namespace

/// A TensorBoard event file: TFRecords of Event messages.
class MetricsWriter::EventFile {
 public:
  explicit EventFile(const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    char host[256] = "host";
    ::gethostname(host, sizeof host - 1);
    file_.open(folder / fmt::format("events.out.tfevents.{}.{}.{}", static_cast<int64_t>(wall_time()), host,
                                    ::getpid()),
               std::ios::binary);
    proto::Event event;
    event.set_file_version("brain.Event:2");
    write(event);
  }

  void scalars(int64_t step, const Metrics& metrics) {
    proto::Event event;
    event.set_step(step);
    for (const auto& [name, value] : metrics) {
      auto* entry = event.mutable_summary()->add_value();
      entry->set_tag(name);
      entry->set_simple_value(static_cast<float>(value));
    }
    write(event);
  }

 private:
  void write(proto::Event& event) {
    event.set_wall_time(wall_time());
    const std::string record = event.SerializeAsString();
    const std::string length = raw_bytes(static_cast<uint64_t>(record.size()));
    file_ << length << raw_bytes(masked_crc32c(length)) << record << raw_bytes(masked_crc32c(record));
    file_.flush();
  }
  std::ofstream file_;
};

MetricsWriter::MetricsWriter(const std::filesystem::path& run_dir, int64_t resume_step, bool tensorboard) {
  const std::filesystem::path path = run_dir / "metrics.jsonl";
  path_ = path.string();
  std::string kept;
  if (resume_step >= 0 && std::filesystem::exists(path)) {
    std::ifstream old(path);
    for (std::string line; std::getline(old, line);) {
      const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      // A line torn by a crash, or of a step that will be done again, is dropped.
      if (row.is_object() && row.contains("step") && row["step"].is_number() && row["step"] <= resume_step) {
        kept += line + "\n";
      }
    }
  }
  write_file_atomic(path, kept);
  jsonl_.open(path, std::ios::app);
  if (tensorboard) events_ = std::make_unique<EventFile>(run_dir / "tensorboard");
}

MetricsWriter::~MetricsWriter() = default;

void MetricsWriter::write(int64_t step, const std::string& stage, const Metrics& metrics) {
  nlohmann::ordered_json row;
  row["step"] = step;
  row["stage"] = stage;
  row["time"] = wall_time();
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
    spdlog::warn("cannot append to {} (disk full?); this step's metrics are lost, training goes on", path_);
    jsonl_.clear();
  }
  if (events_) events_->scalars(step, metrics);
}

void Summary::add(double value, int64_t times) {
  if (times == 0) return;
  const bool first = count_ == 0;
  if (first || std::isnan(value) || value < min_) min_ = value;
  if (first || std::isnan(value) || value > max_) max_ = value;
  sum_ += value * static_cast<double>(times);
  count_ += times;
}

void Summary::write(Metrics& metrics, const std::string& name) const {
  if (count_ == 0) return;
  metrics[name + "/mean"] = mean();
  metrics[name + "/min"] = min_;
  metrics[name + "/max"] = max_;
}

std::string format_duration(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
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
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
}

}  // namespace orrery
