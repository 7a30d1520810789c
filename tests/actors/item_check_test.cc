#include "actors/item_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <atomic>
#include <sstream>

#include "core/error.h"
#include "core/log.h"

namespace orrery::actors {
namespace {

/// What is logged while it lives.
class Log {
 public:
  Log() : before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_pattern("%l %v");
    spdlog::set_default_logger(logger);
  }
  ~Log() { spdlog::set_default_logger(before_); }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;
  std::string take() {
    std::string text = text_.str();
    text_.str("");
    return text;
  }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

ItemCheck check_of(uint64_t count, const std::function<bool(uint64_t)>& good) {
  ItemCheck check;
  check.noun = "things";
  check.count = check.wanted = count;
  check.skip = true;
  check.problem = [good](uint64_t item) -> ItemProblem {
    if (good(item)) return {};
    return {fmt::format("thing {} is bad", item)};
  };
  return check;
}

TEST(FindUsable, CountsWhatIsLeftOutOnOneLine) {
  Log log;
  const UsableItems all = find_usable({}, check_of(5, [](uint64_t) { return true; }));
  EXPECT_EQ(all.size(), 5u);
  EXPECT_EQ(all[4], 4u);
  EXPECT_EQ(log.take(), "");
  const UsableItems some =
      find_usable({}, check_of(3000, [](uint64_t item) { return item >= 1000; }));
  EXPECT_EQ(some.size(), 2000u);
  EXPECT_EQ(some[0], 1000u);
  EXPECT_EQ(some[1999], 2999u);
  EXPECT_EQ(log.take(),
            "warning 1,000 of 3,000 things left out, the first because: thing 0 is bad\n");
  CheckSetup silent;
  silent.tell = false;
  EXPECT_EQ(find_usable(silent, check_of(3, [](uint64_t item) { return item != 1; })).size(), 2u);
  EXPECT_EQ(log.take(), "");
  EXPECT_EQ(find_usable({}, check_of(0, [](uint64_t) { return false; })).size(), 0u);
}

TEST(FindUsable, LooksNoFurtherThanWanted) {
  Log log;
  std::atomic<uint64_t> last = 0;
  ItemCheck check = check_of(100000, [&](uint64_t item) {
    uint64_t seen = last;
    while (item > seen && !last.compare_exchange_weak(seen, item)) {
    }
    return item % 2 == 1;
  });
  check.wanted = 10;
  const UsableItems found = find_usable({}, check);
  ASSERT_EQ(found.size(), 10u);
  EXPECT_EQ(found[9], 19u);
  EXPECT_LT(last, 20u);
  EXPECT_EQ(log.take(), "warning 10 of 20 things left out, the first because: thing 0 is bad\n");
}

TEST(FindUsable, SaysHowFarItIsAndThatItLives) {
  Log log;
  int signs = 0;
  CheckSetup setup;
  setup.on_progress = [&] { ++signs; };
  const ItemCheck check = check_of(5000, [](uint64_t) { return true; });
  find_usable(setup, check);
  EXPECT_EQ(log.take(), "") << "over in no time";
  EXPECT_GT(signs, 2);
  setup.log_every_seconds = 0;
  find_usable(setup, check);
  EXPECT_EQ(log.take(), "info checked 2,048 of 5,000 things\ninfo checked 4,096 of 5,000 things\n");
}

}  // namespace
}  // namespace orrery::actors
