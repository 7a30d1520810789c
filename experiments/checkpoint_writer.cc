#include "experiments/checkpoint_writer.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/parallel.h"
#include "core/timer.h"
#include "experiments/together.h"

namespace orrery {
namespace {

constexpr auto kPatienceWhileUnwinding = std::chrono::seconds(5);
constexpr auto kPoll = std::chrono::milliseconds(5);

}  // namespace

struct CheckpointWriter::Save {
  Save(Target t, std::unique_ptr<Communicator> c) : target(std::move(t)), comm(std::move(c)) {}

  Target target;
  std::unique_ptr<Communicator> comm;
  Buffer copy;  // weights, adam_m, adam_v of the slice, one after the other
  CheckpointInfo info;
  std::exception_ptr error;  // of the copy, then of the save
  double seconds = 0;
  std::atomic<bool> done = false;

  size_t count() const { return static_cast<size_t>(target.end - target.begin); }
  std::span<float> part(size_t index) { return copy.span<float>().subspan(index * count(), count()); }
};

CheckpointWriter::CheckpointWriter(Communicator& learners, Target target)
    : save_(std::make_shared<Save>(std::move(target), learners.duplicate())) {}

CheckpointWriter::~CheckpointWriter() {
  if (!thread_.joinable()) return;
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

void CheckpointWriter::start(const Context& ctx, const CheckpointInfo& info,
                             std::array<std::span<const float>, 3> values) {
  ORRERY_CHECK(!busy(), "a save is under way");
  Save& save = *save_;
  save.info = info;
  save.error = nullptr;
  save.done = false;
  try {
    fault_point(FaultPoint::kCheckpointCopy);
    if (save.copy.bytes() == 0) save.copy = Buffer(ctx.device, values.size() * save.count() * sizeof(float));
    for (size_t i = 0; i < values.size(); ++i) {
      const std::span<float> to = save.part(i);
      ORRERY_CHECK(values[i].size() == to.size(), "{} values for a slice of {}", values[i].size(), to.size());
      parallel_for(ctx, std::ssize(to), 1 << 18, [&](int64_t begin, int64_t end) {
        std::memcpy(to.data() + begin, values[i].data() + begin,
                    static_cast<size_t>(end - begin) * sizeof(float));
      });
    }
  } catch (...) {
    save.error = std::current_exception();  // the other ranks learn of it when they save
  }
  thread_ = std::thread([shared = save_] {
    const Timer timer;
    try {
      const std::filesystem::path saved = publish(*shared);
      if (shared->comm->rank() == 0) spdlog::info("saved {} in {:.2f} s", saved.string(), timer.seconds());
    } catch (...) {
      shared->error = std::current_exception();
    }
    shared->seconds = timer.seconds();
    shared->done = true;
  });
}

double CheckpointWriter::wait() {
  if (!thread_.joinable()) return 0;
  thread_.join();
  if (save_->error) std::rethrow_exception(std::exchange(save_->error, nullptr));
  return save_->seconds;
}

/// On the thread of every learner.
std::filesystem::path CheckpointWriter::publish(Save& save) {
  Communicator& comm = *save.comm;
  const Target& to = save.target;
  const bool first = comm.rank() == 0;
  const std::filesystem::path target = to.folder / checkpoint_name(save.info.step);
  std::filesystem::path temporary;
  together(comm, [&] {
    if (const std::exception_ptr copying = std::exchange(save.error, nullptr))
      std::rethrow_exception(copying);
    if (first) temporary = prepare_checkpoint(to.folder, save.info.step);
  });
  temporary = comm.all_gather_bytes(temporary.string()).front();

  CheckpointFileEntry entry;
  together(comm, [&] {
    entry = write_checkpoint_slice(temporary, comm.rank(), comm.size(), to.table.flat_size(),
                                   {to.begin, to.end, save.part(0), save.part(1), save.part(2)});
  });
  const nlohmann::json mine = {{"name", entry.name},
                               {"bytes", entry.bytes},
                               {"sha256", entry.sha256},
                               {"begin", entry.slice_begin},
                               {"end", entry.slice_end}};
  std::vector<CheckpointFileEntry> entries;
  for (const std::string& text : comm.all_gather_bytes(mine.dump())) {
    const auto json = nlohmann::json::parse(text);
    entries.push_back({json["name"], json["bytes"], json["sha256"], json["begin"], json["end"]});
  }
  together(comm, [&] {
    if (!first) return;
    publish_checkpoint(temporary, target, save.info, to.table, entries, to.tokenizer);
    remove_old_checkpoints(to.folder, to.keep);
  });
  return target;
}

}  // namespace orrery
