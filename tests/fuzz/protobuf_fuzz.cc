// Input: byte 0 chooses a kind of message, the rest is its payload, or (0xFF) whole
// envelopes as they come from another rank. Messages that are accepted must survive a
// round trip.
#include "comm/communicator.h"
#include "comm/mailbox.h"
#include "rollout/trajectory.h"
#include "tests/fuzz/fuzzing.h"

namespace {

using namespace orrery;

void take_groups(const proto::GroupsMessage& message) {
  for (const proto::Group& group : message.groups()) {
    fuzzing::accepted([&] {
      const proto::Group there = rollout::group_to_proto(rollout::group_from_proto(group));
      const proto::Group back = rollout::group_to_proto(rollout::group_from_proto(there));
      if (there.SerializeAsString().size() != back.SerializeAsString().size())
        fuzzing::broken("a group survives a round trip");
    });
  }
}

void open(const comm::Envelope& envelope) {
  switch (envelope.kind) {
    case comm::MessageKind::kLeaseRequest:
      envelope.open<proto::LeaseRequest>();
      return;
    case comm::MessageKind::kLease:
      envelope.open<proto::Lease>();
      return;
    case comm::MessageKind::kGroups:
      return take_groups(envelope.open<proto::GroupsMessage>());
    case comm::MessageKind::kControl:
      envelope.open<proto::Control>();
      return;
    case comm::MessageKind::kRankStatus:
      envelope.open<proto::RankStatus>();
      return;
    case comm::MessageKind::kWeights:
      envelope.open<proto::WeightDelivery>();
      return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<comm::Communicator> comm = comm::make_local_communicator();
  if (size == 0) return 0;
  const std::string payload(reinterpret_cast<const char*>(data) + 1, size - 1);
  const int kind = static_cast<int>(comm::MessageKind::kLeaseRequest) + data[0] % 6;
  if (data[0] == 0xFF) {
    comm::Mailbox mailbox(*comm);
    comm->send(0, kind, payload);
    fuzzing::accepted([&] {
      if (const std::optional<comm::Envelope> envelope = mailbox.try_receive_any()) open(*envelope);
    });
  } else {
    fuzzing::accepted([&] {
      open(comm::Envelope{0, static_cast<comm::MessageKind>(kind), payload});
    });
  }
  return 0;
}
