// Elements of f32 and bf16 matrices as floats: one, or kPacket neighbours by loads and
// stores of 16 bytes, for which they must be aligned. A store to bf16 rounds to nearest
// even.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "kernels/cuda/tensor_core.cuh"

namespace orrery::kernels::cuda {

/// Elements of a thread that takes several at once.
inline constexpr int kPacket = 8;

__device__ inline float load_element(const float* from) { return *from; }
__device__ inline float load_element(const Bf16* from) {
  return __uint_as_float(uint32_t{from->bits} << 16);
}
__device__ inline void store_element(float* to, float value) { *to = value; }
__device__ inline void store_element(Bf16* to, float value) { to->bits = bf16_bits(value); }

/// kElements neighbours: kPacket or 1.
template <int kElements>
struct Packet {
  static_assert(kElements == 1 || kElements == kPacket);
  float at[kElements];
};

template <int kElements>
__device__ Packet<kElements> load_packet(const float* from) {
  Packet<kElements> packet;
  if constexpr (kElements == 1) {
    packet.at[0] = *from;
  } else {
#pragma unroll
    for (int q = 0; q < kElements / 4; ++q) {
      const float4 v = reinterpret_cast<const float4*>(from)[q];
      packet.at[4 * q] = v.x, packet.at[4 * q + 1] = v.y;
      packet.at[4 * q + 2] = v.z, packet.at[4 * q + 3] = v.w;
    }
  }
  return packet;
}
template <int kElements>
__device__ Packet<kElements> load_packet(const Bf16* from) {
  Packet<kElements> packet;
  if constexpr (kElements == 1) {
    packet.at[0] = load_element(from);
  } else {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[kElements / 2] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int p = 0; p < kElements / 2; ++p) {
      packet.at[2 * p] = __uint_as_float(words[p] << 16);
      packet.at[2 * p + 1] = __uint_as_float(words[p] & 0xffff0000u);
    }
  }
  return packet;
}

template <int kElements>
__device__ void store_packet(float* to, const Packet<kElements>& packet) {
  if constexpr (kElements == 1) {
    *to = packet.at[0];
  } else {
#pragma unroll
    for (int q = 0; q < kElements / 4; ++q) {
      reinterpret_cast<float4*>(to)[q] = make_float4(packet.at[4 * q], packet.at[4 * q + 1],
                                                     packet.at[4 * q + 2], packet.at[4 * q + 3]);
    }
  }
}
template <int kElements>
__device__ void store_packet(Bf16* to, const Packet<kElements>& packet) {
  if constexpr (kElements == 1) {
    store_element(to, packet.at[0]);
  } else {
    uint32_t words[kElements / 2];
#pragma unroll
    for (int p = 0; p < kElements / 2; ++p)
      words[p] = uint32_t{bf16_bits(packet.at[2 * p])} | uint32_t{bf16_bits(packet.at[2 * p + 1])}
                                                             << 16;
    *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
  }
}

inline bool is_aligned_to_16(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

/// Whether the rows of a matrix, cut into pieces of `columns`, are packets.
inline bool in_packets(const ConstActMat& mat, int64_t columns) {
  return columns % kPacket == 0 && mat.stride % kPacket == 0 && is_aligned_to_16(mat.data);
}

}  // namespace orrery::kernels::cuda
