#include "core/flight_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <thread>

namespace orrery {
namespace {

using testing::HasSubstr;

TEST(FlightRecorder, KeepsTheNewestEventsInOrder) {
  FlightRecorder recorder;
  EXPECT_TRUE(recorder.events().empty());
  for (int i = 0; i < 100; ++i) recorder.record(fmt::format("event {}", i));
  const auto events = recorder.events();
  ASSERT_EQ(events.size(), FlightRecorder::kEvents);
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].text, fmt::format("event {}", 100 - FlightRecorder::kEvents + i));
    EXPECT_EQ(events[i].times, 1u);
    EXPECT_GE(events[i].seconds_ago, 0);
    EXPECT_LT(events[i].seconds_ago, 60);
  }
}

TEST(FlightRecorder, CountsRepeatsAndCutsLongTexts) {
  FlightRecorder recorder;
  recorder.record("update step 3");
  for (int i = 0; i < 5; ++i) recorder.record("all_to_all of 4 ranks");
  recorder.record(std::string(1000, 'x'));
  recorder.record("two\nlines");
  const auto events = recorder.events();
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[1].text, "all_to_all of 4 ranks");
  EXPECT_EQ(events[1].times, 5u);
  EXPECT_EQ(events[2].text, std::string(FlightRecorder::kTextBytes, 'x'));
  EXPECT_EQ(events[3].text, "two lines");
}

TEST(FlightRecorder, DumpsTheNewestLines) {
  FlightRecorder recorder;
  for (int i = 0; i < 200; ++i) recorder.record(fmt::format("event {}", i));
  recorder.record("event 199");
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  recorder.dump(ends[1], "rank 7:", 3);
  close(ends[1]);
  std::string text(4096, '\0');
  text.resize(static_cast<size_t>(read(ends[0], text.data(), text.size())));
  close(ends[0]);
  EXPECT_THAT(text,
              testing::MatchesRegex("rank 7: [0-9]+\\.[0-9][0-9][0-9] s ago: event 197\n"
                                    "rank 7: [0-9]+\\.[0-9][0-9][0-9] s ago: event 198\n"
                                    "rank 7: [0-9]+\\.[0-9][0-9][0-9] s ago: event 199 .x 2.\n"));
}

TEST(FlightRecorder, MayBeReadWhileThreadsWrite) {
  FlightRecorder recorder;
  std::vector<std::thread> writers;
  for (int t = 0; t < 3; ++t) {
    writers.emplace_back([&recorder, t] {
      for (int i = 0; i < 20000; ++i)
        recorder.record(std::string(40, static_cast<char>('a' + t)) + std::to_string(i));
    });
  }
  size_t read = 0;
  for (int i = 0; i < 300 || read == 0; ++i) {
    for (const auto& event : recorder.events()) {
      ++read;  // a text is never mixed of two
      EXPECT_EQ(event.text.find_first_not_of(event.text.front()), 40u) << event.text;
    }
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(recorder.events().size(), FlightRecorder::kEvents);
}

TEST(FlightRecorderDeathTest, IsPrintedByACrash) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const int signal : {SIGSEGV, SIGABRT}) {
    EXPECT_DEATH(
        {
          install_crash_handlers(3);
          record_event("generate step {}, prompts {}..{}", 12, 96, 103);
          raise(signal);
        },
        "rank 3: ended by SIG.*\n"
        ".*flight recorder, rank 3: 0.*ago: generate step 12, prompts 96..103");
  }
}

}  // namespace
}  // namespace orrery
