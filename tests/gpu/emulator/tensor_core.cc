// What tensor cores compute, and how their operands are loaded: the definition of
// kernels/dot16.h, an output's 16 products at a time and eight outputs beside one
// another. tests/gpu/emulator/tensor_core_test.cc holds it against that definition.
#include <algorithm>
#include <bit>
#include <cstdlib>

#include "kernels/dot16.h"
#include "tests/gpu/emulator/memory.h"

namespace simt {
namespace {

using orrery::kernels::kDot16Rz25;

constexpr int kRows = 16, kColumns = 8, kInner = 16;

/// A number for each column of the product.
using Columns [[gnu::vector_size(kColumns * 4)]] = int32_t;

/// What a lane hands to mma.sync.
struct Fragments {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

/// The exponent of a zero: beside any other one it is less than a step's least.
constexpr int kZeroExponent = -1000;
constexpr uint32_t kBf16Infinity = 0x7f80;

struct Operand {
  int32_t magnitude, exponent, sign;  // sign: 0 or -1
};
Operand unpacked(uint16_t bits) {
  const auto [exponent, significand] = orrery::kernels::unpack_bf16(bits);
  return {static_cast<int32_t>(significand), significand == 0 ? kZeroExponent : exponent,
          -(bits >> 15)};
}

/// value * 2^unit cut toward zero to f32, as cut_to_f32 of the definition.
uint32_t cut(int64_t value, int unit) {
  if (value == 0) return 0;
  const uint32_t sign = value < 0 ? 0x80000000u : 0;
  const auto magnitude = static_cast<uint64_t>(std::abs(value));
  const int top = std::bit_width(magnitude) - 1, exponent = top + unit;
  if (exponent > 127 || exponent < -126) return orrery::kernels::cut_to_f32(value, unit);
  const uint64_t significand = top > 23 ? magnitude >> (top - 23) : magnitude << (23 - top);
  return sign | static_cast<uint32_t>(exponent + 127) << 23 |
         (static_cast<uint32_t>(significand) & 0x7fffffu);
}

/// The operands of a step of a warp, and its accumulators.
struct Step {
  uint16_t a[kRows][kInner], b[kColumns][kInner];
  uint32_t c[kRows][kColumns];
  bool finite[kColumns];  // the columns of b
  Columns magnitude[kInner], exponent[kInner], sign[kInner];

  /// Unpacks b.
  void unpack() {
    for (int column = 0; column < kColumns; ++column) {
      finite[column] = true;
      for (int k = 0; k < kInner; ++k) {
        const uint16_t bits = b[column][k];
        finite[column] = finite[column] && (bits & kBf16Infinity) != kBf16Infinity;
        const Operand y = unpacked(bits);
        magnitude[k][column] = y.magnitude;
        exponent[k][column] = y.exponent;
        sign[k][column] = y.sign;
      }
    }
  }

  /// c of a row becomes the result.
#ifdef __x86_64__  // as the emulated kernels
  [[gnu::target("avx2")]]
#endif
  void
  run(int row) {
    Operand x[kInner];
    bool is_finite = true, is_zero = true;
    for (int k = 0; k < kInner; ++k) {
      is_finite = is_finite && (a[row][k] & kBf16Infinity) != kBf16Infinity;
      x[k] = unpacked(a[row][k]);
      is_zero = is_zero && x[k].magnitude == 0;
    }
    bool all = is_finite;
    for (int column = 0; column < kColumns; ++column)
      all = all && finite[column] &&
            (c[row][column] & orrery::kernels::kInfinityBits) != orrery::kernels::kInfinityBits;
    if (!all) {
      for (int column = 0; column < kColumns; ++column)
        c[row][column] = orrery::kernels::dot_step(a[row], b[column], c[row][column], kDot16Rz25);
      return;
    }
    if (is_zero) {  // nothing is added; rows beyond a matrix are such
      for (uint32_t& bits : c[row]) bits = bits == 0x80000000u ? 0 : bits;
      return;
    }
    orrery::kernels::Unpacked start[kColumns];
    Columns largest;
    for (int column = 0; column < kColumns; ++column) {
      start[column] = orrery::kernels::unpack_f32(c[row][column]);
      const int exponent_of =
          start[column].significand == 0 ? kZeroExponent : start[column].exponent;
      largest[column] = std::max(-133, exponent_of);
    }
    for (int k = 0; k < kInner; ++k) {
      const Columns sum = exponent[k] + x[k].exponent;
      largest = sum > largest ? sum : largest;
    }
    // A product has 14 places behind its point, a unit is 2^(largest - 25). Sixteen
    // products of 16 bits, 11 further on, are less than 2^31.
    Columns total{};
    for (int k = 0; k < kInner; ++k) {
      const Columns below = largest - exponent[k] - x[k].exponent;
      const Columns shift = below > 31 ? 31 : below;
      const Columns negative = sign[k] ^ x[k].sign;
      const Columns term = ((magnitude[k] * x[k].magnitude) << 11) >> shift;
      total += (term ^ negative) - negative;
    }
    for (int column = 0; column < kColumns; ++column) {
      const auto [exponent_of, significand] = start[column];
      const int shift = exponent_of - largest[column] + 2;
      const int64_t kept = shift >= 0     ? int64_t{significand} << shift
                           : shift <= -32 ? 0
                                          : significand >> -shift;
      const int64_t sum = total[column] + ((c[row][column] >> 31) != 0 ? -kept : kept);
      c[row][column] = cut(sum, largest[column] - kDot16Rz25.fraction_bits);
    }
  }
};

void put_pair(uint16_t* to, uint32_t pair) {
  to[0] = static_cast<uint16_t>(pair);
  to[1] = static_cast<uint16_t>(pair >> 16);
}

void multiply(const LaneValues& lanes) {
  Step step;
  const auto part = [&](unsigned lane) { return reinterpret_cast<const Fragments*>(lanes[lane]); };
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Fragments& f = *part(lane);
    const unsigned row = lane / 4, k = lane % 4 * 2;
    put_pair(&step.a[row][k], f.a[0]);
    put_pair(&step.a[row + 8][k], f.a[1]);
    put_pair(&step.a[row][k + 8], f.a[2]);
    put_pair(&step.a[row + 8][k + 8], f.a[3]);
    put_pair(&step.b[row][k], f.b[0]);
    put_pair(&step.b[row][k + 8], f.b[1]);
    for (unsigned i = 0; i < 4; ++i)
      step.c[row + i / 2 * 8][k + i % 2] = std::bit_cast<uint32_t>(f.d[i]);
  }
  step.unpack();
  for (int row = 0; row < kRows; ++row) step.run(row);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const unsigned row = lane / 4, k = lane % 4 * 2;
    for (unsigned i = 0; i < 4; ++i)
      part(lane)->d[i] = std::bit_cast<float>(step.c[row + i / 2 * 8][k + i % 2]);
  }
}

/// What a lane hands to ldmatrix.
struct Load {
  uint32_t* to;
  const char* row;
  unsigned matrices;
  bool transposed;
};

void load(const LaneValues& lanes) {
  const auto part = [&](unsigned lane) { return reinterpret_cast<const Load*>(lanes[lane]); };
  const auto element = [&](unsigned matrix, unsigned row, unsigned column) {
    uint16_t bits;
    std::memcpy(&bits, part(matrix * 8 + row)->row + column * 2, 2);
    return uint32_t{bits};
  };
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Load& mine = *part(lane);
    if (mine.matrices != part(0)->matrices || mine.transposed != part(0)->transposed)
      fail_thread("ldmatrix of different shapes in one warp");
    const unsigned at = lane / 4, pair = lane % 4 * 2;
    for (unsigned m = 0; m < mine.matrices; ++m) {
      mine.to[m] = mine.transposed ? element(m, pair, at) | element(m, pair + 1, at) << 16
                                   : element(m, at, pair) | element(m, at, pair + 1) << 16;
    }
  }
}

}  // namespace

void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b) {
  const Fragments mine{d, a, b};
  act_together("mma.sync", reinterpret_cast<uint64_t>(&mine), multiply);
}

void load_matrices(uint32_t* to, const void* row, int matrices, bool transposed) {
  constexpr size_t kBytes = 16;
  const Load mine{to, static_cast<const char*>(row), static_cast<unsigned>(matrices), transposed};
  if (lane() < mine.matrices * 8) {
    if (reinterpret_cast<uintptr_t>(row) % kBytes != 0)
      fail_thread("ldmatrix of a row that is not aligned to 16 bytes");
    if (reinterpret_cast<uintptr_t>(row) - reinterpret_cast<uintptr_t>(shared_arena) >=
        kSharedArena)
      fail_thread("ldmatrix of a row that is not in shared memory");
    access(row, kBytes, Access::kRead);
  }
  act_together("ldmatrix", reinterpret_cast<uint64_t>(&mine), load);
}

}  // namespace simt
