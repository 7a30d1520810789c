#include "experiments/checkpoint_writer.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <set>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/low_priority_worker.h"
#include "core/parallel.h"
#include "core/span.h"
#include "core/timer.h"
#include "core/transfer.h"
#include "experiments/on_all_ranks.h"

namespace orrery::experiments {
namespace {

constexpr auto kPatienceWhileUnwinding = std::chrono::seconds(5);
/// Where Buffer takes host memory from.
constexpr Device kHost{DeviceType::kCpu};
constexpr auto kPoll = std::chrono::milliseconds(5);

/// Backs every page of the buffer with memory without touching its contents, as another
/// thread may write there meanwhile. Where the system cannot do that, pages come when
/// they are first written to.
void fill_with_pages(const Buffer& buffer, const std::atomic<bool>& enough) {
#ifdef MADV_POPULATE_WRITE
  constexpr size_t kStretch = size_t{2} << 20;
  const std::span<std::byte> bytes = buffer.span<std::byte>();
  for (size_t at = 0; at + kStretch <= bytes.size() && !enough; at += kStretch) {
    if (::madvise(bytes.data() + at, kStretch, MADV_POPULATE_WRITE) != 0) return;
  }
#endif
}

/// download() by all threads, which is faster where the device is the CPU.
void copy_values(const Context& ctx, Span<float> to, Vec<const float> from) {
  ORRERY_CHECK(from.size == to.size(), "{} values for {}", from.size, to.size());
  parallel_for(ctx, to.size(), 1 << 18, [&](int64_t begin, int64_t end) {
    download(ctx, to.subspan(begin, end - begin), from.part(begin, end - begin));
  });
}

}  // namespace

struct CheckpointWriter::Save {
  static constexpr size_t kCopies = 3;

  Save(Target t, std::unique_ptr<comm::Communicator> c)
      : target(std::move(t)), comm(std::move(c)) {}

  Target target;
  std::unique_ptr<comm::Communicator> comm;
  LowPriorityWorker worker;
  Buffer copy;  // host memory: of each module this rank's part of weights, adam_m and adam_v
  storage::CheckpointInfo info;
  std::exception_ptr error;  // what the copy threw, then what the save threw
  double seconds = 0;
  std::atomic<bool> done = false;
  std::set<std::filesystem::path> verified;  // for remove_old_checkpoints()

  /// How many bytes the copy takes.
  size_t bytes() const {
    int64_t count = 0;
    for (const Module& module : target.modules) count += total_size(module.extents);
    return kCopies * count * sizeof(float);
  }
  /// The copy, by module: weights, adam_m, adam_v.
  std::vector<std::array<Span<float>, kCopies>> parts() {
    std::vector<std::array<Span<float>, kCopies>> parts;
    Span<float> rest = copy.span<float>();
    for (const Module& module : target.modules) {
      for (Span<float>& part : parts.emplace_back()) {
        part = rest.first(total_size(module.extents));
        rest = rest.subspan(part.size());
      }
    }
    return parts;
  }
};

CheckpointWriter::CheckpointWriter(comm::Communicator& learners, Target target)
    : save_(std::make_shared<Save>(std::move(target), learners.duplicate())) {
  constexpr size_t kLarge = size_t{16} << 20;
  const size_t bytes = save_->bytes();
  if (bytes < kLarge) return;  // start() takes it in no time
  try {
    save_->copy = Buffer(kHost, bytes);
    // The thread has normal priority. At a lower one, beside a team that computes, it
    // would not be done when the first save comes.
    pages_ = std::thread([this] { fill_with_pages(save_->copy, enough_pages_); });
  } catch (const std::exception&) {  // start() tries again, and tells
  }
}

CheckpointWriter::~CheckpointWriter() {
  enough_pages_ = true;
  if (pages_.joinable()) pages_.join();
  if (!thread_.joinable()) return;
  save_->worker.set_urgent(true);
  if (std::uncaught_exceptions() > 0 && save_->comm->size() > 1) {
    for (const auto deadline = std::chrono::steady_clock::now() + kPatienceWhileUnwinding;
         !save_->done && std::chrono::steady_clock::now() < deadline;)
      std::this_thread::sleep_for(kPoll);
    if (!save_->done) {
      thread_.detach();
      return;
    }
  }
  thread_.join();
}

bool CheckpointWriter::done() const { return busy() && save_->done; }

void CheckpointWriter::start(const Context& ctx, const storage::CheckpointInfo& info,
                             std::span<const Values> values) {
  ORRERY_CHECK(!busy(), "a save is under way");
  Save& save = *save_;
  save.info = info;
  save.error = nullptr;
  save.done = false;
  save.worker.begin();
  try {
    fault_point(FaultPoint::kCheckpointCopy);
    if (save.copy.bytes() == 0) save.copy = Buffer(kHost, save.bytes());
    const auto parts = save.parts();
    ORRERY_CHECK(values.size() == parts.size(), "values of {} modules, not of {}", values.size(),
                 parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      const Module& module = save.target.modules[i];
      const auto& [weights, adam_m, adam_v] = parts[i];
      ORRERY_CHECK(values[i].weights.size == module.table.flat_size(), "{} weights",
                   values[i].weights.size);
      int64_t at = 0;
      for (const Extent& e : module.extents) {
        copy_values(ctx, weights.subspan(at, e.size()), values[i].weights.part(e.begin, e.size()));
        at += e.size();
      }
      copy_values(ctx, adam_m, values[i].adam_m);
      copy_values(ctx, adam_v, values[i].adam_v);
    }
  } catch (...) {
    save.error = std::current_exception();  // the other ranks learn of it when they save
  }
  thread_ = std::thread([shared = save_] {
    const Timer timer;
    try {
      const std::filesystem::path saved = publish(*shared);
      if (shared->comm->rank() == 0)
        spdlog::info("saved {} in {:.2f} s", saved.string(), timer.seconds());
    } catch (...) {
      shared->error = std::current_exception();
    }
    shared->seconds = timer.seconds();
    shared->done = true;
  });
}

double CheckpointWriter::wait() {
  if (!thread_.joinable()) return 0;
  save_->worker.set_urgent(true);
  thread_.join();
  if (save_->error) std::rethrow_exception(std::exchange(save_->error, nullptr));
  return save_->seconds;
}

/// Runs on the background thread of every learner.
std::filesystem::path CheckpointWriter::publish(Save& save) {
  comm::Communicator& comm = *save.comm;
  const Target& to = save.target;
  const bool first = comm.rank() == 0;
  const PieceRunner giving_way = [&save](const std::function<void()>& piece) {
    save.worker.run(piece);
  };
  const std::filesystem::path target = to.folder / storage::checkpoint_name(save.info.step);
  std::filesystem::path temporary;
  on_all_ranks(comm, [&] {
    if (const std::exception_ptr copying = std::exchange(save.error, nullptr))
      std::rethrow_exception(copying);
    if (first) temporary = storage::prepare_checkpoint(to.folder, save.info.step);
  });
  temporary = comm.all_gather_bytes(temporary.string()).front();

  storage::CheckpointFileEntry entry;
  std::vector<storage::StoredModule> modules;
  for (const Module& module : to.modules) modules.push_back(storage::stored_module(module.table));
  on_all_ranks(comm, [&] {
    std::vector<storage::ModulePart> parts;
    const auto copies = save.parts();
    for (size_t i = 0; i < modules.size(); ++i) {
      const auto& [weights, adam_m, adam_v] = copies[i];
      parts.push_back(
          {modules[i], to.modules[i].table.slices(to.modules[i].extents), weights, adam_m, adam_v});
    }
    entry = storage::write_checkpoint_part(temporary, comm.rank(), comm.size(), parts, giving_way);
  });
  std::vector<storage::CheckpointFileEntry> entries;
  for (const std::string& text : comm.all_gather_bytes(storage::entry_text(entry)))
    entries.push_back(storage::entry_from_text(text));
  on_all_ranks(comm, [&] {
    if (!first) return;
    storage::publish_checkpoint(temporary, target, save.info, modules, entries, to.tokenizer,
                                to.chat_template);
    save.verified.erase(target);
    storage::remove_old_checkpoints(to.folder, to.keep, &save.verified, giving_way);
  });
  return target;
}

}  // namespace orrery::experiments
