// A world of one rank: collectives copy or do nothing, messages to oneself wait in a queue.
#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

#include "comm/communicator.h"
#include "core/error.h"

namespace orrery {
namespace {

/// Copies a slice onto a buffer that may be the very same memory.
void copy_slice(std::span<float> all, std::span<const int64_t> offsets, std::span<const float> mine,
                const char* operation) {
  ORRERY_CHECK(offsets.size() == 2 && offsets[0] >= 0 && offsets[0] <= offsets[1] &&
                   static_cast<size_t>(offsets[1]) <= all.size() &&
                   mine.size() == static_cast<size_t>(offsets[1] - offsets[0]),
               "{}: offsets and buffer sizes disagree", operation);
  std::copy(mine.begin(), mine.end(), all.begin() + offsets[0]);
}

class LocalCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }

  void barrier() override {}
  void broadcast(std::span<std::byte>, int root) override { check_peer(root, "broadcast"); }
  void all_reduce_sum(std::span<float>) override {}
  void all_reduce_sum(std::span<double>) override {}
  void all_reduce_max(std::span<double>) override {}

  void all_gather(std::span<float> all, std::span<const int64_t> offsets,
                  std::span<const float> mine) override {
    if (!offsets.empty() && offsets[0] >= 0 && all.data() + offsets[0] == mine.data()) return;
    copy_slice(all, offsets, mine, "all_gather");
  }
  void all_to_all_pieces(std::span<const float> send, std::span<const int64_t> offsets, int64_t piece,
                         std::span<float>, const PieceSink& sink) override {
    ORRERY_CHECK(piece > 0 && offsets.size() == 2 && offsets[0] >= 0 && offsets[0] <= offsets[1] &&
                     static_cast<size_t>(offsets[1]) <= send.size(),
                 "all_to_all: offsets and buffer size disagree");
    const int64_t length = offsets[1] - offsets[0];
    for (int64_t begin = 0; begin < length; begin += piece) {
      const float* part = send.data() + offsets[0] + begin;
      sink(begin, std::min(piece, length - begin), std::span(&part, 1));
    }
  }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override { return {mine}; }

  void send(int destination, int tag, const std::string& bytes) override {
    check_peer(destination, "send");
    ORRERY_CHECK(tag >= 0, "send: tag {} is negative", tag);
    const std::lock_guard lock(mutex_);
    waiting_.push_back({0, tag, bytes});
  }

  Message receive(int source, int tag) override {
    if (auto message = try_receive(source, tag)) return std::move(*message);
    // Nobody else can send it: waiting would be for ever.
    fail("receive: no message with tag {} waits and there is only one rank", tag);
  }

  std::optional<Message> try_receive(int source, int tag) override {
    if (source != kAnySource) check_peer(source, "receive");
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const Message& m) { return tag == kAnyTag || m.tag == tag; });
    if (found == waiting_.end()) return std::nullopt;
    Message message = std::move(*found);
    waiting_.erase(found);
    return message;
  }

  std::unique_ptr<Communicator> split(int color) override {
    return color < 0 ? nullptr : make_local_communicator();
  }
  std::unique_ptr<Communicator> duplicate() override { return make_local_communicator(); }

 private:
  static void check_peer(int peer, const char* operation) {
    ORRERY_CHECK(peer == 0, "{}: rank {} does not exist, there is only rank 0", operation, peer);
  }

  std::mutex mutex_;
  std::deque<Message> waiting_;
};

}  // namespace

std::unique_ptr<Communicator> make_local_communicator() { return std::make_unique<LocalCommunicator>(); }

}  // namespace orrery
