// Input: byte 0 chooses a kind of message, the rest is its payload, or (0xFF) whole envelopes as they come
// from another rank. Messages that are accepted must survive a round trip.
#include "comm/communicator.h"
#include "comm/mailbox.h"
#include "rollout/trajectory.h"
#include "tests/fuzz/fuzzing.h"

namespace {

using namespace orrery;

void take_groups(const proto::GroupsMessage& message) {
  for (const proto::Group& group : message.groups()) {
    fuzzing::accepted([&] {
      const proto::Group there = group_to_proto(group_from_proto(group));
      const proto::Group back = group_to_proto(group_from_proto(there));
      if (there.SerializeAsString().size() != back.SerializeAsString().size())
        fuzzing::broken("a group survives a round trip");
    });
  }
}

void open(const Letter& letter) {
  switch (letter.kind) {
    case MessageKind::kLeaseRequest:
      letter.open<proto::LeaseRequest>();
      return;
    case MessageKind::kLease:
      letter.open<proto::Lease>();
      return;
    case MessageKind::kGroups:
      return take_groups(letter.open<proto::GroupsMessage>());
    case MessageKind::kControl:
      letter.open<proto::Control>();
      return;
    case MessageKind::kRankStatus:
      letter.open<proto::RankStatus>();
      return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<Communicator> comm = make_local_communicator();
  if (size == 0) return 0;
  const std::string payload(reinterpret_cast<const char*>(data) + 1, size - 1);
  const int kind = static_cast<int>(MessageKind::kLeaseRequest) + data[0] % 5;
  if (data[0] == 0xFF) {
    Mailbox mailbox(*comm);
    comm->send(0, kind, payload);
    fuzzing::accepted([&] {
      if (const std::optional<Letter> letter = mailbox.try_receive_any()) open(*letter);
    });
  } else {
    fuzzing::accepted([&] { open(Letter{0, static_cast<MessageKind>(kind), payload}); });
  }
  return 0;
}
