// Metrics of a run: metrics.jsonl (one object a step, verl's names), TensorBoard event
// files, and the progress line. docs/formats.md describes both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>

namespace orrery::experiments {

using Metrics = std::map<std::string, double>;

/// The stage of SFT's lines in metrics.jsonl, as it is called everywhere on disk. RL's
/// is rollout::kRlStage ("grpo", whatever the estimator), a validation's
/// kValidationStage.
inline constexpr const char* kSftStage = "sft";

/// Wall-clock seconds of a step's phases, under verl's names (timing_s/...).
using Timings = std::map<std::string, double>;

/// Where a run takes up its metrics again.
struct MetricsResume {
  int64_t step = -1;             ///< of the checkpoint; -1: the run starts anew
  bool validates_again = false;  ///< the validation at `step` comes once more
  bool older_program = false;  ///< its event files may lack numbers (zeros) that metrics.jsonl has
};

/// Owned by rank 0. Lines are flushed as they are written. On resume, lines of what is
/// done again are dropped, and TensorBoard is told to forget them, so that no (step,
/// stage) is listed twice.
class MetricsWriter {
 public:
  MetricsWriter(const std::filesystem::path& run_dir, const MetricsResume& resume,
                bool tensorboard);
  ~MetricsWriter();
  /// `step`: SFT and RL steps done; `stage`: "sft", "grpo" or "val" (a validation);
  /// `stage_step`: of SFT, else of RL, done.
  void write(int64_t step, const std::string& stage, int64_t stage_step, const Metrics& metrics);

 private:
  std::ofstream jsonl_;
  std::string path_;
  class EventFile;
  std::unique_ptr<EventFile> events_;
};

/// min, mean and max of values under name/..., nothing when empty. A NaN among them
/// makes all three NaN, wherever it stands.
class Summary {
 public:
  void add(double value, int64_t times = 1);
  void write(Metrics& metrics, const std::string& name) const;
  double mean() const { return count_ > 0 ? sum_ / count_ : 0; }
  double max() const { return max_; }
  double min() const { return min_; }
  int64_t count() const { return count_; }

 private:
  double sum_ = 0, min_ = 0, max_ = 0;
  int64_t count_ = 0;
};

/// "1:23:45" or "2:07".
std::string format_duration(double seconds);
/// "12.3k", "1.2M", "87.0".
std::string format_count(double value);

/// Peak resident memory of this process, GiB.
double peak_memory_gib();

}  // namespace orrery::experiments
