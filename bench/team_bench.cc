// What a parallel loop costs beside its work: our team (core/team.h) and libgomp's in
// turns, by the work of a part and the serial time between two loops. For tuning
// core/spin_bound.h on an idle machine.
//   bench_team [--threads 2] [--parts-us 0,2,10,50,200]
//              [--gaps-us 0,5,20,60,250,1000,5000] [--turns 11]
#include <CLI/CLI.hpp>
#include <vector>

#include "bench/turns.h"
#include "core/parallel.h"

namespace orrery::bench {
namespace {

constexpr double kTurnSeconds = 0.03;

void work(int64_t rounds) {
  volatile uint32_t sink = 1;
  uint32_t x = sink;
  for (int64_t i = 0; i < rounds; ++i) x = x * 1664525u + 1013904223u;
  sink = x;
}

double rounds_of_a_us() {
  constexpr int64_t kRounds = 1'000'000;
  double best = 1;
  for (int turn = 0; turn < 20; ++turn)
    best = std::min(best, seconds(
                              1, [] { work(kRounds); }, 1));
  return kRounds / (best * 1e6);
}

struct Case {
  int threads = 2;
  int64_t part = 0, gap = 0;  // rounds
};

void by_one(const Case& c) {
  for (int i = 0; i < c.threads; ++i) work(c.part);
}

void by_us(const Case& c) {
  parallel_for(Context{.threads = c.threads}, c.threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work(c.part);
  });
}

void by_libgomp(const Case& c) {
#pragma omp parallel num_threads(c.threads)
  work(c.part);
}

/// Microseconds of a loop, without the gap before it.
template <class Loop>
double turn(const Case& c, const Loop& loop) {
  int64_t loops = 0;
  double looped = 0;
  const auto loop_after_gap = [&] {
    work(c.gap);
    const double begin = now(2);
    loop(c);
    looped += now(2) - begin;
    ++loops;
  };
  seconds_of_turn(2, loop_after_gap, 1);
  loops = 0, looped = 0;
  for (const double start = now(2); now(2) - start < kTurnSeconds || loops < 3;) loop_after_gap();
  return looped / static_cast<double>(loops) * 1e6;
}

int run(int argc, char** argv) {
  CLI::App app{"Parallel loops by our team and by libgomp's: microseconds a loop"};
  int threads = 2, turns = 11;
  std::vector<double> parts{0, 2, 10, 50, 200}, gaps{0, 5, 20, 60, 250, 1000, 5000};
  app.add_option("--threads", threads, "members of a team")->check(CLI::Range(2, 256));
  app.add_option("--parts-us", parts, "work of a part, a list")->delimiter(',');
  app.add_option("--gaps-us", gaps, "serial work between two loops, a list")->delimiter(',');
  app.add_option("--turns", turns, "medians are of so many")->check(CLI::Range(1, 1001));
  CLI11_PARSE(app, argc, argv);
  const double us = rounds_of_a_us();
  std::printf("%8s %8s %12s %12s %12s %12s\n", "gap us", "part us", "one thread", "ours", "libgomp",
              "ours/libgomp");
  for (const double gap : gaps) {
    for (const double part : parts) {
      const Case c{threads, static_cast<int64_t>(part * us), static_cast<int64_t>(gap * us)};
      std::vector<double> one, ours, libgomp, ratio;
      for (int i = 0; i < turns; ++i) {
        one.push_back(turn(c, by_one));
        ours.push_back(turn(c, by_us));
        libgomp.push_back(turn(c, by_libgomp));
        ratio.push_back(ours.back() / libgomp.back());
      }
      std::printf("%8g %8g %12.2f %12.2f %12.2f %12.2f\n", gap, part, median(one), median(ours),
                  median(libgomp), median(ratio));
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace
}  // namespace orrery::bench

int main(int argc, char** argv) {
  return orrery::bench::bench_main("bench_team", orrery::bench::run, argc, argv);
}
