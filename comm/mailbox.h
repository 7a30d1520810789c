// Typed messages between ranks: Protobuf over the Communicator's point-to-point calls.
// Every message carries its kind, length and CRC-32. A damaged or foreign one is an
// Error that names sender and kind, never a half-parsed record. Messages of one kind
// between two ranks arrive in the order in which they were sent. As thread-safe as the
// communicator. A message has at most 2 GiB - 1 bytes, which is Protobuf's limit; send
// large batches in parts.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "comm/communicator.h"
#include "proto/messages.pb.h"

namespace orrery::comm {

/// The value is the tag on the communicator, so a mailbox may share a communicator with
/// other users of small tags.
enum class MessageKind : int {
  kLeaseRequest = 1001,
  kLease = 1002,
  kGroups = 1003,
  kControl = 1004,
  kRankStatus = 1005,
  kWeights = 1006
};

std::string_view message_name(MessageKind kind);

template <class M>
struct KindOf;
template <>
struct KindOf<proto::LeaseRequest> {
  static constexpr MessageKind kValue = MessageKind::kLeaseRequest;
};
template <>
struct KindOf<proto::Lease> {
  static constexpr MessageKind kValue = MessageKind::kLease;
};
template <>
struct KindOf<proto::GroupsMessage> {
  static constexpr MessageKind kValue = MessageKind::kGroups;
};
template <>
struct KindOf<proto::Control> {
  static constexpr MessageKind kValue = MessageKind::kControl;
};

template <>
struct KindOf<proto::RankStatus> {
  static constexpr MessageKind kValue = MessageKind::kRankStatus;
};

template <>
struct KindOf<proto::WeightDelivery> {
  static constexpr MessageKind kValue = MessageKind::kWeights;
};

/// A verified message that is not parsed yet.
struct Envelope {
  int source = 0;
  MessageKind kind = MessageKind::kControl;
  std::string payload;

  /// Parses the payload. Error when the message is of another kind or not a valid M.
  template <class M>
  M open() const {
    M message;
    open_into(KindOf<M>::kValue, message);
    return message;
  }

 private:
  void open_into(MessageKind expected, google::protobuf::MessageLite& message) const;
};

namespace detail {
std::string seal(MessageKind kind, const google::protobuf::MessageLite& message);
Envelope unseal(MessageKind kind, int receiver, int source, std::string bytes);
}  // namespace detail

/// The bytes of a message as a mailbox sends them, for messages that travel in a
/// collective.
template <class M>
std::string seal(const M& message) {
  return detail::seal(KindOf<M>::kValue, message);
}

/// Verifies what seal() made on rank `source` and opens it on rank `receiver`.
template <class M>
M unseal(int receiver, int source, std::string bytes) {
  return detail::unseal(KindOf<M>::kValue, receiver, source, std::move(bytes)).template open<M>();
}

class Mailbox {
 public:
  /// The communicator must outlive the mailbox.
  explicit Mailbox(Communicator& comm) : comm_(comm) {}

  /// Returns at once; the message is copied.
  template <class M>
  void send(int destination, const M& message) {
    send_message(destination, KindOf<M>::kValue, message);
  }

  /// Waits for a message of this type (source: kAnySource or a rank). `from` receives
  /// the sender.
  template <class M>
  M receive(int source = Communicator::kAnySource, int* from = nullptr) {
    const Envelope envelope = receive_envelope(source, KindOf<M>::kValue);
    if (from != nullptr) *from = envelope.source;
    return envelope.open<M>();
  }

  /// The next message of this type, or nothing when none waits.
  template <class M>
  std::optional<M> try_receive(int source = Communicator::kAnySource, int* from = nullptr) {
    const std::optional<Envelope> envelope = try_receive_envelope(source, KindOf<M>::kValue);
    if (!envelope) return std::nullopt;
    if (from != nullptr) *from = envelope->source;
    return envelope->open<M>();
  }

  /// As above, but for a message of any kind: look at Envelope::kind, then call
  /// open<M>(). Every message on the communicator must be a mailbox's.
  Envelope receive_any(int source = Communicator::kAnySource);
  std::optional<Envelope> try_receive_any(int source = Communicator::kAnySource);

 private:
  void send_message(int destination, MessageKind kind,
                    const google::protobuf::MessageLite& message);
  Envelope receive_envelope(int source, MessageKind kind);
  std::optional<Envelope> try_receive_envelope(int source, MessageKind kind);

  Communicator& comm_;
};

}  // namespace orrery::comm
