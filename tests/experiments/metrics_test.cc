#include "experiments/metrics.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "experiments/checkpointing.h"
#include "experiments/evaluate.h"
#include "tests/support/scratch.h"

namespace orrery {
namespace {

TEST(PassAtK, IsTheUnbiasedEstimate) {
  EXPECT_DOUBLE_EQ(pass_at_k(10, 3, 1), 0.3);
  EXPECT_DOUBLE_EQ(pass_at_k(4, 0, 4), 0.0);
  EXPECT_DOUBLE_EQ(pass_at_k(4, 1, 4), 1.0);
  EXPECT_NEAR(pass_at_k(5, 2, 2), 1.0 - 3.0 / 10, 1e-12);  // 1 - C(3,2) / C(5,2)
}

TEST(Format, DurationsAndCounts) {
  EXPECT_EQ(format_duration(127), "2:07");
  EXPECT_EQ(format_duration(5025), "1:23:45");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(1.2e6), "1.2M");
}

TEST(Metrics, ResumeDropsLaterAndTornLines) {
  const testing_support::ScratchFolder scratch;
  const std::filesystem::path folder = scratch.path();
  {
    MetricsWriter writer(folder, -1, /*tensorboard=*/true);
    for (int step = 1; step <= 3; ++step) writer.write(step, "grpo", {{"a", step}, {"nan", std::nan("")}});
  }
  write_file_atomic(folder / "metrics.jsonl", read_file(folder / "metrics.jsonl") + "{\"step\": 4, \"tor");
  {
    MetricsWriter writer(folder, 2, false);
    writer.write(3, "grpo", {{"a", 33}});
  }
  std::istringstream lines(read_file(folder / "metrics.jsonl"));
  std::vector<double> values;
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    values.push_back(row["a"]);
    if (row["step"] < 3) {
      EXPECT_TRUE(row["nan"].is_null());
    }
  }
  EXPECT_EQ(values, (std::vector<double>{1, 2, 33}));
  EXPECT_FALSE(std::filesystem::is_empty(folder / "tensorboard"));
}

}  // namespace
}  // namespace orrery
