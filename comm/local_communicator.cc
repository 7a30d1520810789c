// The communicator of one rank: collectives copy or do nothing, and messages to oneself
// wait in a queue.
#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

#include "comm/checks.h"
#include "comm/communicator.h"
#include "core/error.h"

namespace orrery::comm {
namespace {

void check_peer(int peer, const char* operation) {
  ORRERY_CHECK(peer == 0, "{}: rank {} does not exist, there is only rank 0", operation, peer);
}

/// Hands the rank's own elements to the sink at once.
class LocalAllToAll final : public DataPlane::AllToAll {
 public:
  explicit LocalAllToAll(const DataPlane::AllToAllBuffers& buffers) : buffers_(buffers) {
    ORRERY_CHECK(buffers.piece > 0, "all_to_all: pieces of {}", buffers.piece);
  }
  void add(Span<const int64_t> offsets) override {
    check_offsets(offsets, 1, buffers_.send.size);
    for (int64_t begin = offsets[0]; begin < offsets[1]; begin += buffers_.piece)
      pieces_.push_back({begin, std::min(begin + buffers_.piece, offsets[1])});
  }
  std::optional<DataPlane::Piece> poll() override {
    if (pieces_.empty()) return std::nullopt;
    const Extent extent = pieces_.front();
    pieces_.pop_front();
    part_ = buffers_.send.data + extent.begin;
    return DataPlane::Piece{extent, {&part_, 1}};
  }
  std::optional<DataPlane::Piece> wait() override { return poll(); }

 private:
  DataPlane::AllToAllBuffers buffers_;
  std::deque<Extent> pieces_;    // which nobody has asked for
  const float* part_ = nullptr;  // the last piece's only one
};

class LocalDataPlane final : public DataPlane {
 public:
  void broadcast(const Context& /*ctx*/, DeviceArray /*data*/, int root) override {
    check_peer(root, "broadcast");
  }
  void all_reduce_sum(const Context& /*ctx*/, DeviceArray /*data*/) override {}
  void all_gather(const Context& /*ctx*/, DeviceArray all,
                  Span<const std::vector<Extent>> owned) override {
    check_extents(owned, 1, all.size);
  }
  std::unique_ptr<AllToAll> all_to_all(const Context& /*ctx*/,
                                       const AllToAllBuffers& buffers) override {
    return std::make_unique<LocalAllToAll>(buffers);
  }
};

class LocalCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }

  Waiting waiting() const override { return waiting_in_.get(); }
  void wait(const char* operation, const std::function<bool()>& done) override {
    wait_until(waiting_in_, operation, done);
  }

  void barrier() override {}
  void broadcast(std::span<std::byte>, int root) override { check_peer(root, "broadcast"); }
  void all_reduce_sum(std::span<double>) override {}
  void all_reduce_max(std::span<double>) override {}
  std::vector<std::string> all_gather_bytes(const std::string& mine) override { return {mine}; }

  void send(int destination, int tag, const std::string& bytes) override {
    check_peer(destination, "send");
    ORRERY_CHECK(tag >= 0, "send: tag {} is negative", tag);
    const std::lock_guard lock(mutex_);
    messages_.push_back({0, tag, bytes});
  }

  Message receive(int source, int tag) override {
    if (auto message = try_receive(source, tag)) return std::move(*message);
    // Nobody else can send it: waiting would be for ever.
    fail("receive: no message with tag {} waits and there is only one rank", tag);
  }

  std::optional<Message> try_receive(int source, int tag) override {
    if (source != kAnySource) check_peer(source, "receive");
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(messages_.begin(), messages_.end(), [&](const Message& m) {
      return tag == kAnyTag || m.tag == tag;
    });
    if (found == messages_.end()) return std::nullopt;
    Message message = std::move(*found);
    messages_.erase(found);
    return message;
  }

  std::unique_ptr<Communicator> split(int color) override {
    return color < 0 ? nullptr : as_offspring(make_local_communicator());
  }
  std::unique_ptr<Communicator> duplicate() override {
    return as_offspring(make_local_communicator());
  }

 private:
  std::unique_ptr<DataPlane> make_data_plane(Device /*device*/) override {
    return std::make_unique<LocalDataPlane>();
  }

  std::mutex mutex_;
  std::deque<Message> messages_;
  WaitState waiting_in_;
};

}  // namespace

std::unique_ptr<Communicator> make_local_communicator() {
  return std::make_unique<LocalCommunicator>();
}

}  // namespace orrery::comm
