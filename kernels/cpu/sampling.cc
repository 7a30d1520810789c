// Drawing tokens (kernels/sampling.h). What holds, and makes the result independent of
// how it is found:
//   1. Candidates' weights are summed in whole units of 2^-40 (fixed()). A weight is at
//      most 2^40 units and a vocabulary at most 2^22 tokens, so a sum is at most 2^62:
//      exact in an int64_t, in whatever order it is added.
//   2. Candidates stand with rising ids, and every step that drops some keeps the
//      order. So among equal logits the first met is the best.
//   3. The tokens with z of at least some threshold are a prefix of the ranking. If
//      they weigh as much as top_p needs, or are as many as top_k, the rest of the
//      vocabulary need not be looked at.
#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sampling.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// The largest logit * inv_temperature; NaN if a logit is NaN or +inf, or if all are
/// -inf.
float sampling_max(const float* logits, int64_t vocab, float inv_temperature) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const Lanes inv = set16(inv_temperature);
  const Lanes zero = set16(0.0f);
  const Lanes floor = set16(std::numeric_limits<float>::lowest());
  Lanes max0 = set16(kLowest), max1 = max0;
  // Sums of 0 z: 0 for finite z, else NaN. -inf counts as the lowest number.
  Lanes poison0 = zero, poison1 = zero;
  const auto scan = [&](Lanes logit, Lanes& max, Lanes& poison) HWY_ATTR {
    const Lanes z = mul(logit, inv);
    max = max16(z, max);
    poison = mul_add(
        each([](auto x, auto low) HWY_ATTR { return hn::IfThenElse(hn::Lt(x, low), low, x); }, z,
             floor),
        zero, poison);
  };
  int64_t j = 0;
  for (; j + 2 * kSumLanes <= vocab; j += 2 * kSumLanes) {
    scan(load16(logits + j), max0, poison0);
    scan(load16(logits + j + kSumLanes), max1, poison1);
  }
  for_each16(vocab - j, [&](int64_t i, auto io)
                            HWY_ATTR { scan(io.load(logits + j + i, kLowest), max0, poison0); });
  const float max = largest16(max16(max0, max1));
  const bool good = sum16(add(poison0, poison1)) == 0.0f && max > kLowest;
  return good ? max : std::numeric_limits<float>::quiet_NaN();
}

/// Lowest id whose logit equals `value`; the caller knows that one does.
int64_t first_equal(const float* logits, int64_t vocab, float value) {
  const LaneTag d;
  const int64_t lanes = hn::Lanes(d);
  const auto wanted = hn::Set(d, value);
  int64_t j = 0;
  for (; j + lanes <= vocab; j += lanes) {
    if (!hn::AllFalse(d, hn::Eq(hn::LoadU(d, logits + j), wanted))) break;
  }
  while (j < vocab - 1 && logits[j] != value) ++j;
  return j;
}

/// p_j = exp(logit_j * inv_temperature - max).
void sampling_weights(float* p, const float* logits, int64_t count, float inv_temperature,
                      float max) {
  const Lanes inv = set16(inv_temperature);
  const Lanes m = set16(max);
  for_each16(count, [&](int64_t j, auto io) HWY_ATTR {
    io.store(p + j, exp16(sub(mul(io.load(logits + j), inv), m)));
  });
}

/// Lanes sums of the weights of consecutive blocks of kSampleBlock tokens.
void sampling_block_sums(float* sums, const float* logits, int64_t vocab, float inv_temperature,
                         float max) {
  const Lanes inv = set16(inv_temperature);
  const Lanes m = set16(max);
  for (int64_t first = 0; first < vocab; first += kSampleBlock, ++sums) {
    Lanes sum = set16(0.0f);
    for_each16(std::min(kSampleBlock, vocab - first), [&](int64_t j, auto io) HWY_ATTR {
      const Lanes logit = io.load(logits + first + j, -std::numeric_limits<float>::infinity());
      sum = add(sum, exp16(sub(mul(logit, inv), m)));
    });
    *sums = sum16(sum);
  }
}

/// Appends (z, id) of tokens [begin, end) with z = logit * inv_temperature >=
/// threshold, ids rising; returns how many. z and ids need room for 16 more than they
/// receive.
int64_t collect_candidates(float* z, int32_t* ids, const float* logits, int64_t begin, int64_t end,
                           float inv_temperature, float threshold) {
  const LaneTag d;
  const hn::RebindToSigned<LaneTag> di;
  const int64_t lanes = hn::Lanes(d);
  const auto inv = hn::Set(d, inv_temperature);
  const auto least = hn::Set(d, threshold);
  int64_t count = 0, j = begin;
  for (; j + lanes <= end; j += lanes) {
    const auto value = hn::Mul(hn::LoadU(d, logits + j), inv);
    const auto keep = hn::Ge(value, least);
    if (hn::AllFalse(d, keep)) continue;
    // Whole vectors are stored: compressing straight to memory is microcode on some
    // CPUs, and a hundred times slower.
    hn::StoreU(hn::Compress(value, keep), d, z + count);
    hn::StoreU(hn::Compress(hn::Iota(di, static_cast<int32_t>(j)), hn::RebindMask(di, keep)), di,
               ids + count);
    count += hn::CountTrue(d, keep);
  }
  for (; j < end; ++j) {
    const float value = logits[j] * inv_temperature;
    if (value >= threshold) {
      z[count] = value;
      ids[count++] = static_cast<int32_t>(j);
    }
  }
  return count;
}

/// p_j = exp(z_j - max).
void candidate_weights(float* p, const float* z, int64_t count, float max) {
  const Lanes m = set16(max);
  for_each16(count,
             [&](int64_t j, auto io) HWY_ATTR { io.store(p + j, exp16(sub(io.load(z + j), m))); });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/parallel.h"
#include "kernels/checks.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/scratch.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(sampling_max);
HWY_EXPORT(first_equal);
HWY_EXPORT(sampling_weights);
HWY_EXPORT(sampling_block_sums);
HWY_EXPORT(collect_candidates);
HWY_EXPORT(candidate_weights);

namespace {

/// A row's logits and their largest, scaled.
struct Row {
  const float* logits;
  int64_t vocab;
  float inv_temperature;
  float max;
};

/// One thread's memory.
struct WorkArea {
  float* block_sums = nullptr;
  float* z = nullptr;        ///< candidates' scaled logits
  int32_t* ids = nullptr;    ///< candidates' tokens, rising
  float* p = nullptr;        ///< candidates' weights, exp(z - max)
  int32_t* order = nullptr;  ///< candidates that a selection still considers
};

/// A weight in whole units of 2^-40, rounded down. So tokens below 1e-12 of the most
/// probable one count as impossible once a filter is on.
int64_t fixed(float p) { return static_cast<int64_t>(p * 0x1p40); }

/// Fills block_sums; returns their sum, added in order.
double sum_blocks(const Row& row, const WorkArea& area) {
  HWY_DYNAMIC_DISPATCH(sampling_block_sums)
  (area.block_sums, row.logits, row.vocab, row.inv_temperature, row.max);
  double total = 0.0;
  for (int64_t b = 0; b * kSampleBlock < row.vocab; ++b) total += area.block_sums[b];
  return total;
}

/// Inverse CDF over the whole vocabulary: first the block, then the token in it.
int32_t draw_from_all(const Row& row, const WorkArea& area, float uniform) {
  const double target = uniform * sum_blocks(row, area);
  const int64_t blocks = (row.vocab + kSampleBlock - 1) / kSampleBlock;
  double before = 0.0;
  int64_t block = 0;
  for (; block + 1 < blocks; ++block) {
    const double after = before + area.block_sums[block];
    if (after > target) break;
    before = after;
  }
  const int64_t first = block * kSampleBlock;
  const int64_t count = std::min(kSampleBlock, row.vocab - first);
  float p[kSampleBlock];
  HWY_DYNAMIC_DISPATCH(sampling_weights)
  (p, row.logits + first, count, row.inv_temperature, row.max);
  // The block's sum was rounded differently from this one. Where `target` lies beyond
  // this one, the last possible token of the block is drawn.
  int64_t last = 0;
  for (int64_t j = 0; j < count; ++j) {
    if (p[j] <= 0.0f) continue;
    last = j;
    before += p[j];
    if (before > target) break;
  }
  return static_cast<int32_t>(first + last);
}

int64_t collect(const Row& row, const WorkArea& area, float threshold) {
  return HWY_DYNAMIC_DISPATCH(collect_candidates)(area.z, area.ids, row.logits, 0, row.vocab,
                                                  row.inv_temperature, threshold);
}

/// Orders candidates: the most probable one has the smallest key; equal logits, -0 and
/// 0 among them, have equal keys.
uint32_t rank_key(float z) {
  const auto bits = std::bit_cast<uint32_t>(z + 0.0f);
  return (bits & 0x80000000u) != 0 ? bits : bits ^ 0x7fffffffu;
}

/// The last candidate to keep, so that those of its rank or better weigh `needed`.
/// REQUIRES: needed >= 1, and all candidates together weigh at least that.
///
/// A radix selection over the bits of the key, from the top: 11, 11, then the low 11
/// (one of them again). Before each pass `active` holds the candidates that agree with
/// the sought one in all upper bits, ids rising; `needed` is what is left after all
/// better ones, and `active` weighs at least that. The pass sums weights by the next
/// bits and goes on inside the bin where the sum reaches `needed`. At the end all keys
/// in `active` are equal, so it is in rank order.
template <class Weight>
int32_t last_to_keep(const WorkArea& area, int64_t count, int64_t needed, const Weight& weight) {
  constexpr uint32_t kBins = 2048;
  int32_t* active = area.order;
  std::iota(active, active + count, 0);
  for (const int shift : {21, 10, 0}) {
    int64_t bins[kBins] = {};
    const auto bin_of = [&](int32_t i) { return (rank_key(area.z[i]) >> shift) % kBins; };
    for (int64_t i = 0; i < count; ++i) bins[bin_of(active[i])] += weight(active[i]);
    uint32_t bin = 0;
    while (bin + 1 < kBins && bins[bin] < needed) needed -= bins[bin++];
    int64_t left = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t candidate = active[i];
      active[left] = candidate;
      left += bin_of(candidate) == bin;  // no branch: it would be mispredicted half the time
    }
    count = left;
  }
  int64_t i = 0;
  while (i + 1 < count && weight(active[i]) < needed) needed -= weight(active[i++]);
  return active[i];
}

/// Drops the candidates that rank after candidate `last`. The others keep their order;
/// their weights are to be computed again. Returns how many stay.
int64_t keep_through(const WorkArea& area, int64_t count, int32_t last) {
  const float last_z = area.z[last];
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float z = area.z[i];
    area.z[kept] = z;
    area.ids[kept] = area.ids[i];
    kept += int{z > last_z} | (int{z == last_z} & int{i <= last});
  }
  return kept;
}

/// Keeps the k best of `count` candidates. Returns how many stay.
int64_t keep_best(const WorkArea& area, int64_t count, int64_t k) {
  if (count <= k) return count;
  const auto one = [](int32_t /*candidate*/) { return int64_t{1}; };
  return keep_through(area, count, last_to_keep(area, count, k, one));
}

/// Collects the k best tokens of the vocabulary. Tokens below the k-th best of those
/// seen so far are not worth collecting.
int64_t collect_top_k(const Row& row, const WorkArea& area, int64_t k) {
  constexpr int64_t kChunk = 4096;
  float threshold = -std::numeric_limits<float>::infinity();
  int64_t count = 0;
  for (int64_t begin = 0; begin < row.vocab; begin += kChunk) {
    count += HWY_DYNAMIC_DISPATCH(collect_candidates)(area.z + count, area.ids + count, row.logits,
                                                      begin, std::min(begin + kChunk, row.vocab),
                                                      row.inv_temperature, threshold);
    if (count > 2 * k + 512) {
      count = keep_best(area, count, k);
      threshold = *std::min_element(area.z, area.z + count);
    }
  }
  return keep_best(area, count, k);
}

void weigh(const Row& row, const WorkArea& area, int64_t count) {
  HWY_DYNAMIC_DISPATCH(candidate_weights)(area.p, area.z, count, row.max);
}

int64_t mass_of(const WorkArea& area, int64_t count) {
  int64_t mass = 0;
  for (int64_t i = 0; i < count; ++i) mass += fixed(area.p[i]);
  return mass;
}

/// Keeps the fewest best candidates whose weights reach `needed` (see last_to_keep).
int64_t keep_mass(const WorkArea& area, int64_t count, int64_t needed) {
  const auto weight = [&](int32_t candidate) { return fixed(area.p[candidate]); };
  return keep_through(area, count, last_to_keep(area, count, needed, weight));
}

/// Collects the fewest best tokens of the vocabulary whose probability reaches top_p.
/// Tries falling thresholds until the tokens above one weigh enough (invariant 3); a
/// language model rarely needs more than the first. `needed` comes from the float sums
/// of all blocks and may exceed what the units make of them: then all tokens stay.
int64_t collect_top_p(const Row& row, const WorkArea& area, float top_p) {
  const double total = sum_blocks(row, area);
  const int64_t needed = std::max<int64_t>(1, static_cast<int64_t>(top_p * total * 0x1p40));
  for (const float share : {0x1p-10f, 0x1p-14f, 0x1p-18f, 0.0f}) {
    const float threshold = row.max + log_f32(static_cast<float>(total) * share);  // share 0: -inf
    const int64_t count = collect(row, area, threshold);
    weigh(row, area, count);
    if (mass_of(area, count) >= needed) return keep_mass(area, count, needed);
    if (share == 0.0f) return count;
  }
  return 0;
}

/// Collects the tokens with p >= min_p, and perhaps a few more.
int64_t collect_min_p(const Row& row, const WorkArea& area, float min_p) {
  // z - max is rounded before the exponential, and so is its result. Hence a margin;
  // the caller then tests p itself.
  const double log_min_p = log_f32(min_p);
  const double bound = row.max + log_min_p * (1.0 + 1e-6) - 1e-6;
  const float threshold =
      std::nextafter(static_cast<float>(bound), -std::numeric_limits<float>::infinity());
  return collect(row, area, threshold);
}

int32_t draw_from_candidates(const WorkArea& area, int64_t count, float uniform) {
  const double total = mass_of(area, count);
  const auto target = static_cast<int64_t>(uniform * total);
  int64_t sum = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t mass = fixed(area.p[i]);
    if (mass == 0) continue;
    last = i;
    sum += mass;
    if (sum > target) break;
  }
  return area.ids[last];
}

bool has_filter(const SamplingParams& p, int64_t vocab) {
  return (p.top_k > 0 && p.top_k < vocab) || p.top_p < 1.0f || p.min_p > 0.0f;
}

int32_t sample_row(const float* logits, int64_t vocab, const SamplingParams& params, float uniform,
                   const WorkArea& area) {
  const bool greedy = params.temperature == 0.0f;
  const float inv_temperature = greedy ? 1.0f : 1.0f / params.temperature;
  const float max = HWY_DYNAMIC_DISPATCH(sampling_max)(logits, vocab, inv_temperature);
  if (std::isnan(max)) return -1;
  if (greedy) return static_cast<int32_t>(HWY_DYNAMIC_DISPATCH(first_equal)(logits, vocab, max));
  const Row row{logits, vocab, inv_temperature, max};
  if (!has_filter(params, vocab)) return draw_from_all(row, area, uniform);

  int64_t count = 0;
  if (params.top_k > 0 && params.top_k < vocab) {
    count = collect_top_k(row, area, params.top_k);
    if (params.top_p < 1.0f) {
      weigh(row, area, count);
      const double total = mass_of(area, count);
      const auto needed = static_cast<int64_t>(params.top_p * total);
      count = keep_mass(area, count, std::max<int64_t>(1, needed));
    }
  } else if (params.top_p < 1.0f) {
    count = collect_top_p(row, area, params.top_p);
  } else {
    count = collect_min_p(row, area, params.min_p);
  }
  weigh(row, area, count);
  for (int64_t i = 0; i < count; ++i) {
    if (area.p[i] < params.min_p) area.p[i] = 0.0f;  // the best has p = 1 and stays
  }
  return draw_from_candidates(area, count, uniform);
}

}  // namespace

void sample_forward(const Context& ctx, const SampleForward& op) {
  const Span<int32_t> ids = host(op.ids);
  const Span<const SamplingParams> params = host(op.params);
  const Span<const float> uniform = host(op.uniform);
  const int64_t rows = op.logits.rows, vocab = op.logits.cols;
  const bool filtered = std::any_of(params.begin(), params.end(),
                                    [&](const SamplingParams& p) { return has_filter(p, vocab); });
  const int64_t worth = std::max<int64_t>(rows * vocab / kExpGrain, 1);
  const int64_t team = std::max<int64_t>(std::min({int64_t{ctx.threads}, rows, worth}), 1);
  ScratchScope memory;
  auto* const work_areas = memory.alloc<WorkArea>(team);
  for (int64_t i = 0; i < team; ++i) {
    WorkArea& area = work_areas[i];
    area = {};
    area.block_sums = memory.alloc<float>(vocab / kSampleBlock + 1);
    if (!filtered) continue;
    const int64_t room = vocab + kSumLanes;
    area.z = memory.alloc<float>(room);
    area.ids = memory.alloc<int32_t>(room);
    area.p = memory.alloc<float>(room);
    area.order = memory.alloc<int32_t>(room);
  }
  parallel_for(ctx, team, 1, [&](int64_t begin, int64_t end) {
    for (int64_t member = begin; member < end; ++member) {
      for (int64_t i = member; i < rows; i += team) {
        ids[i] = sample_row(row(op.logits, i), vocab, params[i], uniform[i], work_areas[member]);
      }
    }
  });
}

}  // namespace orrery::kernels::cpu
#endif
