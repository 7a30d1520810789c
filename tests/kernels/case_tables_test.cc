// Every op that is dispatched to a device has a case table, with rows for its oracle,
// its benchmark and, of a gradient, its finite differences.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include "tests/kernels/cases/all_cases.h"

namespace orrery::kernels {
namespace {
using namespace cases;

/// The functions that kernels/*.cc hand to dispatch() for an op's context: of the CPU
/// and of CUDA, by one name.
std::set<std::string> dispatched_ops() {
  static const std::regex kCall(R"(dispatch<cpu::(\w+), cuda::\1>\(\s*ctx,)");
  std::set<std::string> ops;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(ORRERY_SOURCE_DIR) + "/kernels")) {
    if (entry.path().extension() != ".cc") continue;
    std::ifstream file(entry.path());
    const std::string text(std::istreambuf_iterator<char>(file), {});
    for (std::sregex_iterator call(text.begin(), text.end(), kCall), end; call != end; ++call)
      ops.insert((*call)[1].str());
  }
  return ops;
}

TEST(CaseTables, EveryOpHasOne) {
  std::set<std::string> listed;
  for (const OpTable& table : kOpTables)
    EXPECT_TRUE(listed.insert(table.op).second) << table.op << " is listed twice";
  const std::set<std::string> ops = dispatched_ops();
  EXPECT_GT(ops.size(), 30u);
  for (const std::string& op : ops)
    EXPECT_TRUE(listed.contains(op)) << op << " has no case table in tests/kernels/cases";
}

TEST(CaseTables, HaveRowsForEveryUse) {
  for (const OpTable& table : kOpTables) {
    const bool gradient = std::string(table.op).find("_backward") != std::string::npos;
    const Use needed = gradient ? kTest | kBenchBackward : kOracle | kBenchForward;
    EXPECT_EQ(table.uses & needed, needed) << table.op;
  }
}

}  // namespace
}  // namespace orrery::kernels
