// SHA-256 (OpenSSL). Used for checkpoints and for proving weight deliveries.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace orrery {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text.data(), text.size()))); }
  /// Lower-case hexadecimal digest; call once, last.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Digest of one block of memory.
std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace orrery
