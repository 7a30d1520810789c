#include "comm/mailbox.h"

#include <array>
#include <cstring>
#include <limits>

#include "core/ascii.h"
#include "core/error.h"
#include "core/fault.h"

namespace orrery::comm {
namespace {

constexpr uint32_t kMagic = 0x4C59524F;                        // "ORYL" in memory
constexpr size_t kMaxBytes = std::numeric_limits<int>::max();  // of a Protobuf message

/// Stands before the payload. All ranks of a job have the same byte order.
struct EnvelopeHeader {
  uint32_t magic;
  uint32_t kind;
  uint64_t bytes;
  uint32_t crc;
  uint32_t reserved;
};

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xEDB88320u : 0u);
    table[i] = value;
  }
  return table;
}

/// CRC-32 of IEEE 802.3 (reflected polynomial 0xEDB88320).
uint32_t crc32(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) crc = (crc >> 8) ^ kTable[(crc ^ byte_of(c)) & 0xFFu];
  return ~crc;
}

int tag_of(MessageKind kind) { return static_cast<int>(kind); }

std::optional<MessageKind> kind_of_tag(int tag) {
  if (tag < tag_of(MessageKind::kLeaseRequest) || tag > tag_of(MessageKind::kWeights)) return {};
  return MessageKind{tag};
}

/// Checks the header and the CRC: returns the payload as the sender sent it, or throws.
Envelope verify(int receiver, Communicator::Message&& message) {
  const std::optional<MessageKind> kind = kind_of_tag(message.tag);
  if (!kind) {
    fail(
        "rank {} got a message with unknown tag {} from rank {}: "
        "all ranks must run the same orrery",
        receiver, message.tag, message.source);
  }
  const auto damaged = [&](const std::string& how) {
    fail(
        "rank {} got a damaged {} message from rank {}: {}; "
        "check the memory and network of both hosts",
        receiver, message_name(*kind), message.source, how);
  };
  EnvelopeHeader header{};
  if (message.bytes.size() < sizeof header) {
    damaged(fmt::format("{} bytes are fewer than its header's {}", message.bytes.size(),
                        sizeof header));
  }
  std::memcpy(&header, message.bytes.data(), sizeof header);
  if (header.magic != kMagic || header.reserved != 0)
    damaged("it does not begin as a message does");
  const uint32_t expected = tag_of(*kind);
  if (header.kind != expected) damaged(fmt::format("its header says kind {}", header.kind));
  const uint64_t came = message.bytes.size() - sizeof header;
  if (header.bytes != came) damaged(fmt::format("{} bytes came of {}", came, header.bytes));
  message.bytes.erase(0, sizeof header);
  const uint32_t crc = crc32(message.bytes);
  if (crc != header.crc)
    damaged(fmt::format("CRC-32 is {:08x} instead of {:08x}", crc, header.crc));
  Envelope envelope;
  envelope.source = message.source;
  envelope.kind = *kind;
  envelope.payload = std::move(message.bytes);
  return envelope;
}

FaultAction fault_at(MessageKind kind) {
  switch (kind) {
    case MessageKind::kLeaseRequest:
    case MessageKind::kLease:
      return fault_point(FaultPoint::kLeaseSend);
    case MessageKind::kGroups:
      return fault_point(FaultPoint::kTrajectorySend);
    default:
      return FaultAction::kNone;
  }
}

}  // namespace

std::string_view message_name(MessageKind kind) {
  switch (kind) {
    case MessageKind::kLeaseRequest:
      return "lease request";
    case MessageKind::kLease:
      return "lease";
    case MessageKind::kGroups:
      return "groups";
    case MessageKind::kControl:
      return "control";
    case MessageKind::kRankStatus:
      return "rank status";
    case MessageKind::kWeights:
      return "weights";
  }
  return "unknown";
}

void Envelope::open_into(MessageKind expected, google::protobuf::MessageLite& message) const {
  if (kind != expected) {
    fail("rank {} sent a {} message where a {} message was expected", source, message_name(kind),
         message_name(expected));
  }
  if (payload.size() > kMaxBytes || !message.ParseFromArray(payload.data(), payload.size())) {
    fail(
        "a {} message from rank {} ({} bytes) cannot be parsed: all ranks must run the same orrery",
        message_name(kind), source, payload.size());
  }
}

std::string detail::seal(MessageKind kind, const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  if (size > kMaxBytes) {
    fail("a {} message has {} bytes, more than Protobuf's 2 GiB: send it in parts",
         message_name(kind), size);
  }
  std::string bytes(sizeof(EnvelopeHeader), '\0');
  ORRERY_CHECK(message.AppendToString(&bytes), "a {} message cannot be serialised",
               message_name(kind));
  EnvelopeHeader header{};
  header.magic = kMagic;
  header.kind = tag_of(kind);
  header.bytes = bytes.size() - sizeof header;
  header.crc = crc32(std::string_view(bytes).substr(sizeof header));
  std::memcpy(bytes.data(), &header, sizeof header);
  if (fault_at(kind) == FaultAction::kCorrupt) bytes[bytes.size() / 2] ^= 1;
  return bytes;
}

Envelope detail::unseal(MessageKind kind, int receiver, int source, std::string bytes) {
  return verify(receiver, {source, tag_of(kind), std::move(bytes)});
}

void Mailbox::send_message(int destination, MessageKind kind,
                           const google::protobuf::MessageLite& message) {
  comm_.send(destination, tag_of(kind), detail::seal(kind, message));
}

Envelope Mailbox::receive_envelope(int source, MessageKind kind) {
  return verify(comm_.rank(), comm_.receive(source, tag_of(kind)));
}

std::optional<Envelope> Mailbox::try_receive_envelope(int source, MessageKind kind) {
  auto message = comm_.try_receive(source, tag_of(kind));
  if (!message) return std::nullopt;
  return verify(comm_.rank(), std::move(*message));
}

Envelope Mailbox::receive_any(int source) {
  return verify(comm_.rank(), comm_.receive(source, Communicator::kAnyTag));
}

std::optional<Envelope> Mailbox::try_receive_any(int source) {
  auto message = comm_.try_receive(source, Communicator::kAnyTag);
  if (!message) return std::nullopt;
  return verify(comm_.rank(), std::move(*message));
}

}  // namespace orrery::comm
