// Drawing tokens (kernels/sampling.h). A block of threads takes a row. What holds, and
// gives the CPU's tokens:
//   1. Without a filter the sums are those of the contract: half a warp adds a block's
//      weights in lanes, one thread adds the blocks, and one the tokens of a block.
//   2. With a filter weights are whole units of 2^-40, whose sums are exact in whatever
//      order. The kept tokens are a prefix of the ranking by (logit, lower id): those
//      whose key is smaller than Kept::key, and the first Kept::equals of those of that
//      key, by id. A radix selection over the key's bytes finds them.
//   3. Tokens of one key have one logit, -0 and 0 being equal, hence one weight.
#include "kernels/cuda/sampling.h"

#include <limits>

#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

using Units = unsigned long long;  // of 2^-40; or a count

constexpr int kThreads = 512, kWarps = kThreads / kWarp;
constexpr int kBins = 256;
/// Threads that share a copy of the bins stand kCopies apart, so they seldom meet.
constexpr int kCopies = 16;
constexpr int kBlockSize = int{kSampleBlock};
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int kAll = 0x7fffffff;
static_assert(kBlockSize == kBins);

struct SampleOp {
  int32_t* ids;
  Mat<const float> logits;
  const SamplingParams* params;
  const float* uniform;
};

struct Kept {
  unsigned key = 0xffffffffu;
  int equals = kAll;  ///< tokens of that key that stay
  int last = kAll;    ///< the id of the last of them
};

/// What the threads of a block share.
struct Shared {
  unsigned low[kBins][kCopies], high[kBins][kCopies];
  Units bins[kBins];
  float weights[kBlockSize];
  Units sums[kWarps];
  int counts[kWarps];
  float maxima[kWarps];
  Units needed, total;
  double total_weight, before;
  int bin, chosen, first;
};

__device__ bool filters(const SamplingParams& p, int64_t vocab) {
  return (p.top_k > 0 && p.top_k < vocab) || p.top_p < 1.0f || p.min_p > 0.0f;
}

/// A row and the block that draws from it.
struct Sampler {
  const float* logits;
  int vocab;
  float inv_temperature, largest = 0.0f, min_p = 0.0f;
  Shared& shared;
  double* block_sums;  // [blocks + 1]: sums of the blocks before
  Kept kept;

  __device__ float z_of(int j) const { return __fmul_rn(logits[j], inv_temperature); }
  __device__ float weight_of(float z) const { return exp_f32(__fsub_rn(z, largest)); }
  __device__ int blocks() const { return (vocab + kBlockSize - 1) / kBlockSize; }
  __device__ static Units units_of(float p) {
    return static_cast<Units>(static_cast<long long>(__dmul_rn(p, 0x1p40)));
  }
  /// The most probable token has the smallest key.
  __device__ static unsigned key_of(float z) {
    const unsigned bits = __float_as_uint(__fadd_rn(z, 0.0f));
    return (bits & 0x80000000u) != 0 ? bits : bits ^ 0x7fffffffu;
  }
  __device__ bool is_kept(int j, unsigned key) const {
    return key < kept.key || (key == kept.key && j <= kept.last);
  }

  /// The sum over the block's threads, for all of them.
  __device__ Units sum_threads(Units mine) const {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2)
      mine += __shfl_xor_sync(kAllThreads, mine, step);
    __syncthreads();
    if (threadIdx.x % kWarp == 0) shared.sums[threadIdx.x / kWarp] = mine;
    __syncthreads();
    Units all = 0;
    for (int w = 0; w < kWarps; ++w) all += shared.sums[w];
    return all;
  }

  /// Sets `largest`. False where a logit is NaN or +inf, or none is finite.
  __device__ bool find_max() {
    float most = kMinusInfinity;
    bool good = true;
#pragma unroll 8
    for (int j = threadIdx.x; j < vocab; j += kThreads) {
      const float z = z_of(j);
      good = good && z < std::numeric_limits<float>::infinity();
      most = fmaxf(most, z);
    }
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2)
      most = fmaxf(most, __shfl_xor_sync(kAllThreads, most, step));
    if (threadIdx.x % kWarp == 0) shared.maxima[threadIdx.x / kWarp] = most;
    const bool bad = __syncthreads_or(!good);
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, shared.maxima[w]);
    largest = most;
    return !bad && most > kMinusInfinity;
  }

  __device__ int first_of_max() const {
    if (threadIdx.x == 0) shared.first = vocab;
    __syncthreads();
    for (int j = threadIdx.x; j < vocab; j += kThreads) {
      if (logits[j] != largest) continue;
      atomicMin(&shared.first, j);
      break;
    }
    __syncthreads();
    return shared.first;
  }

  /// Fills block_sums; returns the sum of all blocks.
  __device__ double sum_blocks() const {
    const int lane = threadIdx.x % kSumLanes;
    // Whole warps go around, so that the fold has its threads.
    const int rounds = (blocks() + kThreads / kSumLanes - 1) / (kThreads / kSumLanes);
    for (int r = 0; r < rounds; ++r) {
      const int block = r * (kThreads / kSumLanes) + static_cast<int>(threadIdx.x) / kSumLanes;
      const int begin = block * kBlockSize, end = min(vocab, begin + kBlockSize);
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kBlockSize / kSumLanes; ++i) {
        const int j = begin + lane + i * kSumLanes;
        // exp(-inf) is what a missing token counts as: adding 0 changes no sum of
        // weights.
        if (j < end) sum = __fadd_rn(sum, weight_of(z_of(j)));
      }
      sum = sum16(sum);
      if (lane == 0 && block < blocks()) block_sums[block + 1] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      double total = 0.0;
      block_sums[0] = 0.0;
#pragma unroll 8
      for (int b = 1; b <= blocks(); ++b) block_sums[b] = total = __dadd_rn(total, block_sums[b]);
      shared.total_weight = total;
    }
    __syncthreads();
    return shared.total_weight;
  }

  __device__ int draw_from_all(float uniform) const {
    const double target = __dmul_rn(uniform, sum_blocks());
    if (threadIdx.x == 0) shared.chosen = blocks() - 1;
    __syncthreads();
    // Sums rise, so the lowest block whose end is beyond the target is the first met.
    for (int b = threadIdx.x; b + 1 < blocks(); b += kThreads) {
      if (block_sums[b + 1] > target) {
        atomicMin(&shared.chosen, b);
        break;
      }
    }
    __syncthreads();
    const int first = shared.chosen * kBlockSize, count = min(kBlockSize, vocab - first);
    if (threadIdx.x < count) shared.weights[threadIdx.x] = weight_of(z_of(first + threadIdx.x));
    __syncthreads();
    if (threadIdx.x != 0) return 0;
    double before = block_sums[shared.chosen];
    int last = 0;
    for (int j = 0; j < count; ++j) {
      if (shared.weights[j] <= 0.0f) continue;
      last = j;
      before = __dadd_rn(before, shared.weights[j]);
      if (before > target) break;
    }
    return first + last;
  }

  /// Adds to a bin of 64 bits by two of 32.
  __device__ void add_to_bin(int bin, Units value) const {
    const int copy = threadIdx.x % kCopies;
    const auto low = static_cast<unsigned>(value);
    auto high = static_cast<unsigned>(value >> 32);
    if (low != 0 && atomicAdd(&shared.low[bin][copy], low) + low < low) ++high;
    if (high != 0) atomicAdd(&shared.high[bin][copy], high);
  }

  /// Keeps the fewest best tokens that weigh `needed` (>= 1), or all where all weigh
  /// less. weigh(z): a token's weight.
  template <class Weigh>
  __device__ void select(Units needed, const Weigh& weigh) {
    unsigned prefix = 0, mask = 0;
#pragma unroll 1
    for (int shift = 24; shift >= 0; shift -= 8) {
      __syncthreads();
      for (int i = threadIdx.x; i < kBins * kCopies; i += kThreads)
        (&shared.low[0][0])[i] = (&shared.high[0][0])[i] = 0;
      __syncthreads();
#pragma unroll 4
      for (int j = threadIdx.x; j < vocab; j += kThreads) {
        const float z = z_of(j);
        const unsigned key = key_of(z);
        if ((key & mask) == prefix) add_to_bin(static_cast<int>(key >> shift & 255u), weigh(z));
      }
      __syncthreads();
      if (threadIdx.x < kBins) {
        Units sum = 0;
        for (int c = 0; c < kCopies; ++c)
          sum += (Units{shared.high[threadIdx.x][c]} << 32) + shared.low[threadIdx.x][c];
        shared.bins[threadIdx.x] = sum;
      }
      __syncthreads();
      if (threadIdx.x < kWarp) choose_bin(needed);
      __syncthreads();
      if (shift == 24 && shared.total < needed) return;  // all stay
      needed = shared.needed;
      prefix |= static_cast<unsigned>(shared.bin) << shift;
      mask |= 255u << shift;
    }
    const Units each = weigh(z_of_key(prefix));
    kept.key = prefix;
    kept.last = kAll;
    // Where they weigh nothing, none is ever drawn.
    kept.equals = each == 0 ? kAll : static_cast<int>((needed + each - 1) / each);
  }

  /// z + 0 of a key.
  __device__ static float z_of_key(unsigned key) {
    return __uint_as_float((key & 0x80000000u) != 0 ? key : key ^ 0x7fffffffu);
  }

  /// By one warp: the first bin where the sum reaches `needed`, or the last; what is
  /// left of `needed` after the bins before it; and the sum of all bins.
  __device__ void choose_bin(Units needed) const {
    constexpr int kEach = kBins / kWarp;
    const int lane = threadIdx.x;
    Units mine = 0;
    for (int b = 0; b < kEach; ++b) mine += shared.bins[lane * kEach + b];
    Units end = mine;
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const Units before = __shfl_up_sync(kAllThreads, end, step);
      if (lane >= step) end += before;
    }
    const unsigned reach = __ballot_sync(kAllThreads, end >= needed);
    const int owner = reach == 0 ? kWarp - 1 : __ffs(static_cast<int>(reach)) - 1;
    if (lane == kWarp - 1) shared.total = end;
    if (lane != owner) return;
    Units left = needed - (end - mine);
    int bin = lane * kEach;
    while (bin + 1 < (lane + 1) * kEach && shared.bins[bin] < left) left -= shared.bins[bin++];
    shared.bin = bin;
    shared.needed = left;
  }

  /// Finds kept.last where not all tokens of the key stay.
  __device__ void find_last_equal() {
    if (kept.equals == kAll) return;
    int before = 0;  // tokens of the key, of lower ids
    if (threadIdx.x == 0) shared.chosen = kAll;
    for (int begin = 0; begin < vocab; begin += kThreads) {
      const int j = begin + static_cast<int>(threadIdx.x);
      const bool equal = j < vocab && key_of(z_of(j)) == kept.key;
      const unsigned votes = __ballot_sync(kAllThreads, equal);
      __syncthreads();
      if (threadIdx.x % kWarp == 0) shared.counts[threadIdx.x / kWarp] = __popc(votes);
      __syncthreads();
      int rank = before + __popc(votes & ((1u << threadIdx.x % kWarp) - 1));
      for (int w = 0; w < kWarps; ++w) {
        if (w < static_cast<int>(threadIdx.x) / kWarp) rank += shared.counts[w];
        before += shared.counts[w];
      }
      if (equal && rank + 1 == kept.equals) shared.chosen = j;
      if (before >= kept.equals) break;
    }
    __syncthreads();
    kept.last = shared.chosen;
  }

  /// What token j weighs in the draw.
  __device__ Units drawn_units(int j) const {
    const float z = z_of(j);
    if (!is_kept(j, key_of(z))) return 0;
    const float p = weight_of(z);
    return p < min_p ? 0 : units_of(p);
  }

  __device__ int draw_from_kept(float uniform) const {
    auto* const sums = reinterpret_cast<Units*>(block_sums);
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    Units mine = 0;
    for (int block = warp; block < blocks(); block += kWarps) {
      Units sum = 0;
#pragma unroll
      for (int i = 0; i < kBlockSize / kWarp; ++i) {
        const int j = block * kBlockSize + i * kWarp + lane;
        if (j < vocab) sum += drawn_units(j);
      }
#pragma unroll
      for (int step = kWarp / 2; step > 0; step /= 2)
        sum += __shfl_xor_sync(kAllThreads, sum, step);
      if (lane == 0) {
        sums[block] = sum;
        mine += sum;
      }
    }
    const Units total = sum_threads(mine);  // which also makes the threads meet
    const auto target = static_cast<long long>(
        __dmul_rn(uniform, static_cast<double>(static_cast<long long>(total))));
    if (threadIdx.x == 0) {
      // The block where the sum passes the target; the last one with a weight
      // otherwise.
      Units before = 0, before_chosen = 0;
      int chosen = 0;
      for (int b = 0; b < blocks(); ++b) {
        if (sums[b] == 0) continue;
        chosen = b;
        before_chosen = before;
        before += sums[b];
        if (static_cast<long long>(before) > target) break;
      }
      shared.chosen = chosen;
      shared.total = before_chosen;
    }
    __syncthreads();
    const int first = shared.chosen * kBlockSize, count = min(kBlockSize, vocab - first);
    if (threadIdx.x < count) shared.bins[threadIdx.x] = drawn_units(first + threadIdx.x);
    __syncthreads();
    if (threadIdx.x != 0) return 0;
    Units sum = shared.total;
    int last = 0;
    for (int j = 0; j < count; ++j) {
      if (shared.bins[j] == 0) continue;
      last = j;
      sum += shared.bins[j];
      if (static_cast<long long>(sum) > target) break;
    }
    return first + last;
  }

  /// The units of the tokens that are kept so far.
  __device__ Units kept_units() const {
    Units mine = 0;
#pragma unroll 4
    for (int j = threadIdx.x; j < vocab; j += kThreads) {
      const float z = z_of(j);
      if (key_of(z) < kept.key) mine += units_of(weight_of(z));
    }
    const Units equals =
        kept.equals == kAll ? 0 : Units(kept.equals) * units_of(weight_of(z_of_key(kept.key)));
    return sum_threads(mine) + equals;
  }

  __device__ int draw(const SamplingParams& params, float uniform) {
    const auto units = [this](float z) { return units_of(weight_of(z)); };
    if (params.top_k > 0 && params.top_k < vocab) {
      select(static_cast<Units>(params.top_k), [](float) { return Units{1}; });
      if (params.top_p < 1.0f) {
        const auto total = static_cast<double>(static_cast<long long>(kept_units()));
        const auto needed = static_cast<long long>(__dmul_rn(params.top_p, total));
        select(static_cast<Units>(max(needed, 1LL)), units);
      }
    } else if (params.top_p < 1.0f) {
      const double mass = __dmul_rn(__dmul_rn(params.top_p, sum_blocks()), 0x1p40);
      select(static_cast<Units>(max(static_cast<long long>(mass), 1LL)), units);
    }
    min_p = params.min_p;
    find_last_equal();
    return draw_from_kept(uniform);
  }
};

__global__ void __launch_bounds__(kThreads) sample_kernel(SampleOp op) {
  extern __shared__ __align__(16) double sampling_memory[];
  __shared__ Shared shared;
  const int64_t row = blockIdx.x;
  const SamplingParams params = op.params[row];
  const bool greedy = params.temperature == 0.0f;
  Sampler sampler{.logits = op.logits.data + row * op.logits.stride,
                  .vocab = static_cast<int>(op.logits.cols),
                  .inv_temperature = greedy ? 1.0f : __fdiv_rn(1.0f, params.temperature),
                  .shared = shared,
                  .block_sums = sampling_memory};
  int id = -1;
  if (sampler.find_max()) {
    if (greedy) {
      id = sampler.first_of_max();
    } else if (!filters(params, op.logits.cols)) {
      id = sampler.draw_from_all(op.uniform[row]);
    } else {
      id = sampler.draw(params, op.uniform[row]);
    }
  }
  if (threadIdx.x == 0) op.ids[row] = id;
}

}  // namespace

void sample_forward(const Context& ctx, const SampleForward& op) {
  if (op.logits.rows == 0) return;
  const int64_t blocks = ceil_div(op.logits.cols, kSampleBlock);
  const auto bytes = static_cast<int>((blocks + 1) * int64_t{sizeof(double)});
  cudaFuncSetAttribute(sample_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  sample_kernel<<<static_cast<unsigned>(op.logits.rows), kThreads, static_cast<size_t>(bytes),
                  stream_of(ctx)>>>(
      SampleOp{op.ids.data, op.logits, op.params.data, op.uniform.data});
  check_launch("sample_forward");
}

}  // namespace orrery::kernels::cuda
