// The ordered reduction of a gradient (reduce-scatter in tree order, all-gather of the
// slices) beside MPI's own all-reduce and its own reduce-scatter + all-gather, on the
// same buffers, in turns: on a shared machine only the ratio of two runs next to each
// other says anything.
//
//   mpirun -n 4 --oversubscribe --bind-to none
//     bench_reduce [--elements 860000,8000000] [--turns 15] [--json]
//
// Time of a turn is that of the slowest rank, after a barrier. Gradients are written
// anew before every turn. The bytes are those a rank hands to others; a ring
// all-reduce's are 2 (n - 1) / n of the gradient.
#include <mpi.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/turns.h"
#include "comm/communicator.h"
#include "core/buffer.h"
#include "core/error.h"
#include "kernels/optimizer.h"
#include "learners/ordered_reducer.h"

namespace orrery::bench {
namespace {

struct Options {
  std::vector<int64_t> elements = {860'000, 8'000'000, 135'000'000};
  int64_t turns = 15;
  int threads = 1;
  bool json = false;
};

/// One gradient on this rank, and the ways to add it up. Each leaves the whole sum in
/// `gradient`.
class Gradient {
 public:
  Gradient(comm::Communicator& comm, int64_t elements, int threads)
      : comm_(comm),
        elements_(elements),
        plan_(learners::plan_slices(elements, kernels::kNormChunk, comm.size())),
        owned_(plan_.all_extents()),
        gradient_(Device{}, static_cast<size_t>(elements) * sizeof(float)),
        slice_(Device{}, static_cast<size_t>(elements / comm.size() + 1) * sizeof(float)) {
    ctx_.threads = threads;
    for (int64_t r = 0; r < comm.size(); ++r) {
      begins_.push_back(static_cast<int>(elements * r / comm.size()));
      counts_.push_back(static_cast<int>(elements * (r + 1) / comm.size()) - begins_.back());
    }
  }

  void fill() {
    uint32_t bits = 12345u + static_cast<uint32_t>(comm_.rank());
    for (float& value : values()) {
      bits = bits * 1664525u + 1013904223u;
      value = static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f;
    }
  }

  void reduce_scatter() {
    arena_.reset();
    learners::OrderedReduceScatter reduce(ctx_, comm_, gradient_.vec<float>(), plan_,
                                          /*fast=*/false, arena_);
    reduce.send(0);
    reduce.finish();
  }
  void ordered() {
    reduce_scatter();
    comm_.data(ctx_.device).all_gather(ctx_, gradient_.vec<float>(), owned_);
  }
  void all_reduce() {
    MPI_Allreduce(MPI_IN_PLACE, values().data(), static_cast<int>(elements_), MPI_FLOAT, MPI_SUM,
                  MPI_COMM_WORLD);
  }
  void mpi_reduce_scatter() {
    MPI_Reduce_scatter(values().data(), slice_.data(), counts_.data(), MPI_FLOAT, MPI_SUM,
                       MPI_COMM_WORLD);
    MPI_Allgatherv(slice_.data(), counts_[static_cast<size_t>(comm_.rank())], MPI_FLOAT,
                   values().data(), counts_.data(), begins_.data(), MPI_FLOAT, MPI_COMM_WORLD);
  }

  std::span<float> values() const { return gradient_.span<float>(); }

  /// Bytes that the rank with the largest slice sends in ordered().
  double bytes_sent() const {
    double most = 0;
    for (int r = 0; r < comm_.size(); ++r) {
      const auto own = static_cast<double>(length(r));
      most = std::max(most, static_cast<double>(elements_) - own + own * (comm_.size() - 1));
    }
    return most * sizeof(float);
  }
  double ring_bytes() const {
    return 2.0 * (comm_.size() - 1) / comm_.size() * static_cast<double>(elements_) * sizeof(float);
  }

 private:
  int64_t length(int rank) const { return total_size(owned_[static_cast<size_t>(rank)]); }

  comm::Communicator& comm_;
  Context ctx_;
  int64_t elements_;
  learners::SlicePlan plan_;
  std::vector<std::vector<Extent>> owned_;
  Buffer gradient_, slice_;           // slice_: for MPI_Reduce_scatter
  std::vector<int> counts_, begins_;  // of MPI_Reduce_scatter's slices
  Arena arena_;
};

/// Seconds of the slowest rank.
double turn(Gradient& gradient, const std::function<void()>& run) {
  gradient.fill();
  MPI_Barrier(MPI_COMM_WORLD);
  const double begin = MPI_Wtime();
  run();
  double time = MPI_Wtime() - begin;
  MPI_Allreduce(MPI_IN_PLACE, &time, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return time;
}

/// Both sums of the same gradients agree but for rounding.
void check(Gradient& gradient) {
  gradient.fill();
  gradient.ordered();
  const std::vector<float> ours(gradient.values().begin(), gradient.values().end());
  gradient.fill();
  gradient.all_reduce();
  for (size_t i = 0; i < ours.size(); ++i) {
    if (!(std::abs(ours[i] - gradient.values()[i]) < 1e-5f))
      fail("element {}: the ordered sum is {}, MPI's {}", i, ours[i], gradient.values()[i]);
  }
}

nlohmann::json measure(comm::Communicator& comm, int64_t elements, const Options& options) {
  Gradient gradient(comm, elements, options.threads);
  check(gradient);
  const std::function<void()> ways[] = {[&] { gradient.ordered(); }, [&] { gradient.all_reduce(); },
                                        [&] { gradient.mpi_reduce_scatter(); },
                                        [&] { gradient.reduce_scatter(); }};
  constexpr size_t kWays = std::size(ways);
  std::vector<double> times[kWays];
  for (const auto& way : ways) turn(gradient, way);  // memory is touched, connections are made
  for (int64_t i = 0; i < options.turns; ++i) {
    for (size_t w = 0; w < kWays; ++w) {
      const size_t way = (w + static_cast<size_t>(i)) % kWays;  // nobody is always first
      times[way].push_back(turn(gradient, ways[way]));
    }
  }
  std::vector<double> ratios, two_step_ratios;
  for (size_t i = 0; i < times[0].size(); ++i) {
    ratios.push_back(times[0][i] / times[1][i]);
    two_step_ratios.push_back(times[0][i] / times[2][i]);
  }
  return {{"elements", elements},
          {"ranks", comm.size()},
          {"threads", options.threads},
          {"turns", options.turns},
          {"ordered_ms", median(times[0]) * 1e3},
          {"ordered_reduce_scatter_ms", median(times[3]) * 1e3},
          {"mpi_allreduce_ms", median(times[1]) * 1e3},
          {"mpi_reduce_scatter_allgather_ms", median(times[2]) * 1e3},
          {"ordered_over_allreduce", median(ratios)},
          {"ordered_over_reduce_scatter_allgather", median(two_step_ratios)},
          {"sent_by_a_rank_mb", gradient.bytes_sent() * 1e-6},
          {"sent_in_a_ring_mb", gradient.ring_bytes() * 1e-6}};
}

void print(const nlohmann::json& r) {
  std::printf(
      "%9.2fM elements, %d ranks: ordered %8.2f ms (its reduce-scatter %8.2f), "
      "MPI_Allreduce %8.2f ms (ratio %.2f), MPI_Reduce_scatter + Allgatherv %8.2f ms (ratio %.2f); "
      "a rank sends %.1f MB, in a ring %.1f MB\n",
      r["elements"].get<double>() * 1e-6, r["ranks"].get<int>(), r["ordered_ms"].get<double>(),
      r["ordered_reduce_scatter_ms"].get<double>(), r["mpi_allreduce_ms"].get<double>(),
      r["ordered_over_allreduce"].get<double>(), r["mpi_reduce_scatter_allgather_ms"].get<double>(),
      r["ordered_over_reduce_scatter_allgather"].get<double>(),
      r["sent_by_a_rank_mb"].get<double>(), r["sent_in_a_ring_mb"].get<double>());
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Ordered reduction beside MPI's; start with mpirun -n 2 or more (a power of two)");
  app.add_option("--elements", options.elements, "floats of the gradient, a list")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app.add_option("--turns", options.turns, "of each way")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}));
  app.add_option("--threads", options.threads, "of each rank's sum")->check(CLI::Range(1, 256));
  app.add_flag("--json", options.json, "one JSON array instead of lines");
  CLI11_PARSE(app, argc, argv);

  comm::CommWorld world;
  comm::Communicator& comm = world.world();
  if (comm.size() < 2) fail_usage("bench_reduce needs ranks: mpirun -n 2 (or 4) bench_reduce");
  nlohmann::json all = nlohmann::json::array();
  for (const int64_t elements : options.elements) {
    all.push_back(measure(comm, elements, options));
    if (comm.rank() == 0 && !options.json) print(all.back());
  }
  if (comm.rank() == 0 && options.json) std::printf("%s\n", all.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace orrery::bench

int main(int argc, char** argv) {
  return orrery::bench::bench_main("bench_reduce", orrery::bench::run, argc, argv);
}
