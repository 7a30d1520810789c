// What an update says of its loss tokens: sums for metrics, and the tokens of which
// something is wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/span.h"
#include "learners/losses/token.h"

namespace orrery::learners {

/// A loss token of which something is wrong, with its log-prob as it was recorded (or
/// recomputed for another fingerprint) and as the learner computes it now.
struct TokenPlace {
  uint64_t prompt_index = 0;
  uint32_t sample_index = 0;
  int32_t position = 0;  ///< in the response
  int32_t token_id = 0;
  float recorded = 0, recomputed = 0;
  auto place() const { return std::tuple(prompt_index, sample_index, position); }
};

/// Tokens counted, and the first of them by prompt, sample and position: the same one
/// however trees lie in shards.
struct TokenCount {
  double count = 0;
  TokenPlace first;
  void add(const TokenPlace& place);
  void merge(const TokenCount& other);
};

/// NaN equals nothing: a log-prob that is one is wrong on both sides.
bool same_bits(float a, float b);

/// The larger one, NaN when one of them is: unlike std::max, wherever it stands.
double max_or_nan(double a, double b);

/// How far recorded log-probs are from recomputed ones, over tokens. A value that is
/// not finite makes the sums and maxima so.
struct LogprobDifference {
  double probs_diff_sum = 0, probs_diff_square_sum = 0;
  double probs_diff_max = 0, logprob_diff_max = 0;
  void compare(float recomputed, float recorded);  ///< one token more
  void merge(const LogprobDifference& other);
};

/// The sum of a term over tokens, and what it says.
struct TermSum {
  Term term;
  double sum = 0;
};

/// Sums over loss tokens in row order, added across shards in shard order. Sums of
/// terms that are a part of the loss, of the loss itself and of the entropy have the
/// aggregation weights in them.
struct LossSums : LogprobDifference {
  double tokens = 0;
  double loss = 0, entropy = 0;
  std::vector<TermSum> terms;  ///< of the loss's terms(), in that order
  /// Tokens whose log-prob should have the recorded one's bits and has others (a NaN
  /// always has).
  TokenCount mismatches;
  /// Tokens of which a log-prob, advantage, weight, entropy, loss or derivative is not
  /// finite.
  TokenCount not_finite;

  LossSums() = default;
  explicit LossSums(Span<const Term> terms);
  /// The metric that a term is, over all tokens.
  double value(const TermSum& term) const;
  void add(const LossSums& other);

  /// The sums as bytes for ranks of this program, and back: the terms must be the same
  /// ones. Error when the bytes are not so many.
  void append_to(std::string& bytes) const;
  void take_from(std::string_view& bytes);
};

}  // namespace orrery::learners
