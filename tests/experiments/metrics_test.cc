#include "experiments/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <tuple>
#include <vector>

#include "core/file.h"
#include "experiments/checkpointing.h"
#include "proto/event.pb.h"
#include "tests/support/scratch.h"

namespace orrery::experiments {
namespace {

TEST(Format, DurationsAndCounts) {
  EXPECT_EQ(format_duration(127), "2:07");
  EXPECT_EQ(format_duration(5025), "1:23:45");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(1.2e6), "1.2M");
}

using Point = std::pair<int64_t, double>;

/// A run folder of the test's own.
class MetricsFiles : public testing::Test {
 protected:
  MetricsFiles() { std::filesystem::create_directories(folder_); }

  /// (step, stage) of each line of metrics.jsonl, and the value of "a".
  std::vector<std::tuple<int64_t, std::string, double>> lines() const {
    std::istringstream text(read_file(folder_ / "metrics.jsonl"));
    std::vector<std::tuple<int64_t, std::string, double>> result;
    for (std::string line; std::getline(text, line);) {
      const auto row = nlohmann::json::parse(line);
      result.emplace_back(row["step"], row["stage"], row["a"]);
    }
    return result;
  }

  std::vector<std::filesystem::path> event_files() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "tensorboard"))
      files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }

  /// The whole records of an event file: length, its checksum, data, its checksum. A
  /// torn one ends it.
  static std::vector<proto::Event> events(const std::filesystem::path& path) {
    const std::string bytes = read_file(path);
    std::vector<proto::Event> result;
    for (size_t at = 0; at + 12 <= bytes.size();) {
      uint64_t length = 0;
      std::memcpy(&length, bytes.data() + at, sizeof length);
      if (at + 16 + length > bytes.size()) break;
      EXPECT_TRUE(result.emplace_back().ParseFromString(bytes.substr(at + 12, length)));
      at += 16 + length;
    }
    return result;
  }

  /// The curve as TensorBoard shows it: a START forgets what came before of its step
  /// and later ones.
  std::vector<Point> curve(const std::string& tag) const {
    std::vector<Point> points;
    for (const auto& file : event_files()) {
      for (const proto::Event& event : events(file)) {
        if (event.session_log().status() == proto::SessionLog::START)
          std::erase_if(points, [&](const Point& point) { return point.first >= event.step(); });
        for (const auto& value : event.summary().value()) {
          EXPECT_EQ(value.value_case(), proto::SummaryValue::kSimpleValue) << value.tag();
          if (value.tag() == tag) points.emplace_back(event.step(), value.simple_value());
        }
      }
    }
    return points;
  }

  const testing_support::ScratchPath scratch_{"orrery_metrics_"};
  const std::filesystem::path& folder_ = scratch_.path();
};

TEST_F(MetricsFiles, ResumeDropsLaterAndTornLines) {
  {
    MetricsWriter writer(folder_, {}, /*tensorboard=*/true);
    for (int step = 1; step <= 3; ++step)
      writer.write(step, "grpo", step, {{"a", step}, {"nan", std::nan("")}});
  }
  const std::string text = read_file(folder_ / "metrics.jsonl");
  EXPECT_THAT(text, testing::HasSubstr("\"nan\":null"));
  EXPECT_THAT(text,
              testing::HasSubstr("{\"step\":2,\"stage\":\"grpo\",\"stage_step\":2,\"time\":"));
  write_file_atomic(folder_ / "metrics.jsonl", text + "{\"step\": 4, \"tor");
  MetricsWriter(folder_, {.step = 2}, false).write(3, "grpo", 3, {{"a", 33}});
  EXPECT_THAT(lines(), testing::ElementsAre(std::tuple(1, "grpo", 1), std::tuple(2, "grpo", 2),
                                            std::tuple(3, "grpo", 33)));
  { const MetricsWriter fresh(folder_, {}, false); }
  EXPECT_THAT(lines(), testing::IsEmpty()) << "a run that starts anew";
}

TEST_F(MetricsFiles, NoStepAndStageIsListedTwice) {
  {
    MetricsWriter writer(folder_, {}, false);
    writer.write(2, "sft", 2, {{"a", 1}});
    writer.write(2, "val", 0, {{"a", 2}});
    writer.write(3, "grpo", 1, {{"a", 3}});
  }
  { MetricsWriter(folder_, {.step = 2}, false); }
  EXPECT_THAT(lines(), testing::ElementsAre(std::tuple(2, "sft", 1), std::tuple(2, "val", 2)));
  MetricsWriter(folder_, {.step = 2, .validates_again = true}, false)
      .write(2, "val", 0, {{"a", 4}});
  EXPECT_THAT(lines(), testing::ElementsAre(std::tuple(2, "sft", 1), std::tuple(2, "val", 4)));
  // A file in which an older program has repeated a line.
  write_file_atomic(folder_ / "metrics.jsonl", read_file(folder_ / "metrics.jsonl") +
                                                   "{\"step\": 2, \"stage\": \"val\", \"a\": 5}\n");
  { MetricsWriter(folder_, {.step = 2}, false); }
  EXPECT_THAT(lines(), testing::ElementsAre(std::tuple(2, "sft", 1), std::tuple(2, "val", 5)));
}

TEST_F(MetricsFiles, SftsLossBeforeItsFirstStepComesAgain) {
  { MetricsWriter(folder_, {}, false).write(0, "sft", 0, {{"a", 1}}); }
  { MetricsWriter(folder_, {.step = 0}, false); }
  EXPECT_THAT(lines(), testing::ElementsAre(std::tuple(0, "sft", 1)));
  MetricsWriter(folder_, {.step = 0, .validates_again = true}, false)
      .write(0, "sft", 0, {{"a", 2}});
  EXPECT_THAT(lines(), testing::ElementsAre(std::tuple(0, "sft", 2)));
  { MetricsWriter(folder_, {.step = 2, .validates_again = true}, false); }
  EXPECT_THAT(lines(), testing::ElementsAre(std::tuple(0, "sft", 2)));
}

TEST_F(MetricsFiles, TensorBoardIsGivenZerosAndWhatIsNoNumber) {
  const double inf = std::numeric_limits<double>::infinity();
  {
    MetricsWriter writer(folder_, {}, true);
    writer.write(0, "val", 0, {{"a", 0.0}, {"b", -0.0}});
    writer.write(1, "grpo", 1, {{"a", 0.0}, {"b", inf}, {"c", std::nan("")}, {"d", 1e300}});
  }
  EXPECT_EQ(curve("a"), (std::vector<Point>{{0, 0}, {1, 0}}));
  EXPECT_EQ(curve("b"), (std::vector<Point>{{0, 0}, {1, inf}}));
  ASSERT_EQ(curve("c").size(), 1u);
  EXPECT_TRUE(std::isnan(curve("c")[0].second));
  EXPECT_EQ(curve("d"), (std::vector<Point>{{1, inf}})) << "beyond float32";
}

TEST_F(MetricsFiles, TensorBoardForgetsWhatIsDoneAgain) {
  const auto run = [&](const MetricsResume& resume,
                       std::vector<std::tuple<int64_t, const char*, double>> rows) {
    MetricsWriter writer(folder_, resume, true);
    for (const auto& [step, stage, value] : rows)
      writer.write(step, stage, 0, {{std::string(stage) + "/a", value}});
  };
  run({}, {{1, "sft", 1}, {2, "sft", 2}, {2, "val", 0}, {3, "grpo", 3}, {4, "grpo", 4}});
  run({.step = 2, .validates_again = true}, {{2, "val", 0}, {3, "grpo", 33}});
  run({.step = 3},
      {{4, "grpo", 44}});  // within the second: the files' order must not depend on the clock
  EXPECT_EQ(curve("sft/a"), (std::vector<Point>{{1, 1}, {2, 2}}));
  EXPECT_EQ(curve("val/a"), (std::vector<Point>{{2, 0}}));
  EXPECT_EQ(curve("grpo/a"), (std::vector<Point>{{3, 33}, {4, 44}}));
  EXPECT_EQ(event_files().size(), 3u);

  // A crash came between metrics.jsonl and TensorBoard: the checkpoint's own step is
  // written again.
  const auto last = event_files().back();
  std::filesystem::resize_file(last, std::filesystem::file_size(last) - 3);
  EXPECT_EQ(curve("grpo/a"), (std::vector<Point>{{3, 33}}));
  run({.step = 4}, {{5, "grpo", 5}});
  EXPECT_EQ(curve("grpo/a"), (std::vector<Point>{{3, 33}, {4, 44}, {5, 5}}));

  // Without event files (trainer.tensorboard was off) all lines are written.
  std::filesystem::remove_all(folder_ / "tensorboard");
  run({.step = 4}, {{5, "grpo", 55}});
  EXPECT_EQ(curve("grpo/a"), (std::vector<Point>{{3, 33}, {4, 44}, {5, 55}}));
  EXPECT_EQ(curve("sft/a"), (std::vector<Point>{{1, 1}, {2, 2}}));

  run({}, {{1, "grpo", 7}});
  EXPECT_EQ(curve("grpo/a"), (std::vector<Point>{{1, 7}})) << "a run that starts anew";
  EXPECT_THAT(curve("val/a"), testing::IsEmpty());
}

TEST_F(MetricsFiles, TensorBoardGetsWhatWasWrittenWithoutIt) {
  const auto run = [&](const MetricsResume& resume, bool tensorboard, int64_t first, int64_t last,
                       double value) {
    MetricsWriter writer(folder_, resume, tensorboard);
    for (int64_t step = first; step <= last; ++step)
      writer.write(step, "grpo", step, {{"a", value}});
  };
  run({}, false, 1, 2, 1);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "tensorboard"));
  run({.step = 2}, true, 3, 6, 2);
  EXPECT_EQ(curve("a"), (std::vector<Point>{{1, 1}, {2, 1}, {3, 2}, {4, 2}, {5, 2}, {6, 2}}));
  // It goes back, on without events, and beyond where these had come to, or not so far.
  for (const int64_t last : {5, 8}) {
    run({.step = 4}, false, 5, last, 3);
    const std::vector<Point> points = curve("a");
    EXPECT_TRUE(points.empty() || points.back().first < 5) << "5 and 6 are done again";
    run({.step = 5}, false, 6, last, 4);
    run({.step = last}, true, last + 1, last + 1, 5);
    std::vector<Point> expected = {{1, 1}, {2, 1}, {3, 2}, {4, 2}, {5, 3}};
    for (int64_t step = 6; step <= last; ++step) expected.emplace_back(step, 4);
    expected.emplace_back(last + 1, 5);
    EXPECT_EQ(curve("a"), expected);
  }
}

TEST_F(MetricsFiles, AnOlderProgramsEventsAreWrittenAgain) {
  {
    MetricsWriter writer(folder_, {}, true);
    for (int64_t step = 1; step <= 3; ++step) writer.write(step, "grpo", step, {{"a", 1.0}});
  }
  // Its event files had no zeros.
  std::string text = read_file(folder_ / "metrics.jsonl");
  for (size_t at = 0; (at = text.find("}\n", at)) != std::string::npos; at += 2)
    text.insert(at, ",\"b\":0.0"), at += 8;
  write_file_atomic(folder_ / "metrics.jsonl", text);
  { MetricsWriter(folder_, {.step = 2, .older_program = true}, true); }
  EXPECT_EQ(curve("b"), (std::vector<Point>{{1, 0}, {2, 0}}));
  EXPECT_EQ(curve("a"), (std::vector<Point>{{1, 1}, {2, 1}}));
}

}  // namespace
}  // namespace orrery::experiments
