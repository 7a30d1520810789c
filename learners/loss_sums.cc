#include "learners/loss_sums.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/error.h"

namespace orrery::learners {
namespace {

/// Calls visit(value) for every number that the sums consist of.
template <class Sums, class Visit>
void for_each_value(Sums& sums, Visit&& visit) {
  visit(sums.tokens);
  visit(sums.loss);
  visit(sums.entropy);
  for (auto& term : sums.terms) visit(term.sum);
  visit(sums.probs_diff_sum);
  visit(sums.probs_diff_square_sum);
  visit(sums.probs_diff_max);
  visit(sums.logprob_diff_max);
  for (auto* tokens : {&sums.mismatches, &sums.not_finite}) {
    visit(tokens->count);
    auto& first = tokens->first;
    visit(first.prompt_index);
    visit(first.sample_index);
    visit(first.position);
    visit(first.token_id);
    visit(first.recorded);
    visit(first.recomputed);
  }
}

}  // namespace

void TokenCount::add(const TokenPlace& place) {
  if (count == 0 || place.place() < first.place()) first = place;
  count += 1;
}

void TokenCount::merge(const TokenCount& o) {
  if (o.count > 0 && (count == 0 || o.first.place() < first.place())) first = o.first;
  count += o.count;
}

bool same_bits(float a, float b) {
  return !std::isnan(a) && std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

double max_or_nan(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<double>::quiet_NaN();
  return std::max(a, b);
}

void LogprobDifference::compare(float recomputed, float recorded) {
  const double difference = std::abs(std::exp(double{recomputed}) - std::exp(double{recorded}));
  probs_diff_sum += difference;
  probs_diff_square_sum += difference * difference;
  probs_diff_max = max_or_nan(probs_diff_max, difference);
  logprob_diff_max = max_or_nan(logprob_diff_max, std::abs(double{recomputed - recorded}));
}

void LogprobDifference::merge(const LogprobDifference& o) {
  probs_diff_sum += o.probs_diff_sum;
  probs_diff_square_sum += o.probs_diff_square_sum;
  probs_diff_max = max_or_nan(probs_diff_max, o.probs_diff_max);
  logprob_diff_max = max_or_nan(logprob_diff_max, o.logprob_diff_max);
}

LossSums::LossSums(Span<const Term> declared) {
  for (const Term& term : declared) terms.push_back({term, 0});
}

double LossSums::value(const TermSum& term) const {
  return term.term.mean == Mean::kAsLoss ? term.sum : term.sum / std::max(tokens, 1.0);
}

void LossSums::add(const LossSums& o) {
  ORRERY_CHECK(terms.size() == o.terms.size(), "sums of {} terms and of {}", terms.size(),
               o.terms.size());
  tokens += o.tokens;
  loss += o.loss;
  entropy += o.entropy;
  for (size_t i = 0; i < terms.size(); ++i) terms[i].sum += o.terms[i].sum;
  merge(o);
  mismatches.merge(o.mismatches);
  not_finite.merge(o.not_finite);
}

void LossSums::append_to(std::string& bytes) const {
  for_each_value(*this, [&bytes](const auto& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  });
}

void LossSums::take_from(std::string_view& bytes) {
  for_each_value(*this, [&bytes](auto& value) {
    static_assert(std::is_arithmetic_v<std::remove_reference_t<decltype(value)>>);
    ORRERY_CHECK(bytes.size() >= sizeof value, "{} bytes of sums are too few", bytes.size());
    std::memcpy(&value, bytes.data(), sizeof value);
    bytes.remove_prefix(sizeof value);
  });
}

}  // namespace orrery::learners
