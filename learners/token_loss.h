// The evaluation of a token loss over rows of the head: one function of plain values,
// compiled for each device.
#pragma once

#include "core/context.h"
#include "core/device_fn.h"
#include "core/tensor.h"
#include "learners/losses/cispo.h"
#include "learners/losses/dppo_kl.h"
#include "learners/losses/dppo_tv.h"
#include "learners/losses/dro.h"
#include "learners/losses/geo_mean.h"
#include "learners/losses/gspo.h"
#include "learners/losses/policy.h"
#include "learners/losses/ppo.h"
#include "learners/losses/reinforce.h"
#include "learners/losses/sapo.h"
#include "learners/losses/sft.h"
#include "learners/losses/token.h"
#include "learners/losses/topr.h"

namespace orrery::learners {

/// Every loss there is. One that is missing here does not link.
#define ORRERY_TOKEN_LOSSES(LOSS) \
  LOSS(Sft)                       \
  LOSS(Policy<Ppo>)               \
  LOSS(Policy<Gspo>)              \
  LOSS(Policy<GeoMean>)           \
  LOSS(Policy<Cispo>)             \
  LOSS(Policy<Sapo>)              \
  LOSS(Policy<DppoTv>)            \
  LOSS(Policy<DppoKl>)            \
  LOSS(Policy<Topr>)              \
  LOSS(Policy<Reinforce>)         \
  LOSS(Policy<Dro>)

/// Rows, in memory of the device, whose log-probs and entropies are there. All arrays
/// are of one length.
struct LossRows {
  Vec<const float> logprobs, entropies;
  /// logp and entropy are set from the arrays, loss by the loss. The rest is read.
  Vec<TokenEvaluation> tokens;
  /// Derivatives by log-prob and entropy, times the token's weight.
  Vec<float> dlogp, dentropy;
};

/// TokenFunction: a struct of settings with an operator() from LossToken to TokenLoss.
template <class TokenFunction>
struct TokenLossOp {
  TokenFunction loss;
  LossRows rows;
};

/// Sets the rows' tokens, dlogp and dentropy. Error where the arrays' lengths differ,
/// and for a device that this build has no kernels for. Thread-safe for different rows.
template <class TokenFunction>
void token_loss(const Context& ctx, const TokenLossOp<TokenFunction>& op);

#define ORRERY_DECLARE(...) \
  extern template void token_loss(const Context&, const TokenLossOp<__VA_ARGS__>&);
ORRERY_TOKEN_LOSSES(ORRERY_DECLARE)
#undef ORRERY_DECLARE

/// Row i of an op.
template <class TokenFunction>
ORRERY_DEVICE_FN inline void evaluate_row(const TokenLossOp<TokenFunction>& op, int64_t i) {
  TokenEvaluation& row = op.rows.tokens.data[i];
  LossToken token = row.token;
  token.logp = op.rows.logprobs.data[i];
  token.entropy = op.rows.entropies.data[i];
  const TokenLoss loss = op.loss(token);
  op.rows.dlogp.data[i] = row.weight * loss.dlogp;
  op.rows.dentropy.data[i] = row.weight * loss.dentropy;
  row.token = token;
  row.loss = loss;
}

}  // namespace orrery::learners
