// What a learner minimises: a function of its tokens' log-probs, advantages and the
// like. Losses are one file each in learners/losses/; they know no model and no device.
//
// A *token loss* is a function of one token. It is evaluated between logits and their
// gradient, in the one walk through the head that computes both (kernels/lm_head.h), on
// the device where they are.
//
// A *coupled loss* needs whole sequences: a first walk through the head computes their
// log-probs, couple() makes of them each token's coefficient, or another importance
// weight, and from then on it is a token loss, of tokens that have these. Both are
// constants for the gradient: what a loss is differentiated by is a token's own
// log-prob, and operator() says by how much (TokenLoss::dlogp).
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "core/context.h"
#include "core/span.h"
#include "learners/losses/token.h"
#include "learners/token_loss.h"

namespace orrery::learners {

/// Immutable, thread-safe. Called for many tokens at once, never for a single one.
class Loss {
 public:
  virtual ~Loss() = default;
  /// The metrics that the loss declares, beside the loss and the entropy, which every
  /// loss has.
  virtual Span<const Term> terms() const = 0;
  /// Whether tokens' ref_logp matters.
  virtual bool uses_reference() const = 0;
  /// Whether couple() comes before evaluate().
  virtual bool is_coupled() const = 0;
  /// `tokens`: the loss tokens of one sequence, one at least, in order. Sets their
  /// coefficients and importance weights alone.
  virtual void couple(Span<LossToken> tokens) const = 0;
  /// Queues the evaluation of rows on ctx's device: token_loss().
  virtual void evaluate(const Context& ctx, const LossRows& rows) const = 0;
};

/// Whether a loss has a couple() of any kind.
template <class TokenFunction>
concept HasCouple = requires(TokenFunction& loss, Span<LossToken> tokens) {
  loss.couple(tokens);
};

/// A Loss of a struct of settings that has an operator() from LossToken to TokenLoss,
/// terms() and uses_reference(), and is in ORRERY_TOKEN_LOSSES. With a couple() it has
/// an is_coupled(), too, as its settings may leave couple() nothing to do.
template <class TokenFunction>
class LossOf final : public Loss {
 public:
  explicit LossOf(const TokenFunction& function) : function_(function), terms_(function.terms()) {}
  Span<const Term> terms() const override { return terms_; }
  bool uses_reference() const override { return function_.uses_reference(); }
  void evaluate(const Context& ctx, const LossRows& rows) const override {
    token_loss(ctx, TokenLossOp<TokenFunction>{function_, rows});
  }
  bool is_coupled() const override {
    if constexpr (kCouples) return function_.is_coupled();
    return false;
  }
  void couple(Span<LossToken> tokens) const override {
    if constexpr (kCouples) function_.couple(tokens);
  }

 private:
  static constexpr bool kCouples = CouplesTokens<TokenFunction>;
  // Another couple() would never be called, and nobody would hear of it.
  static_assert(kCouples || !HasCouple<TokenFunction>,
                "couple() must be const (learners/losses/token.h)");
  TokenFunction function_;
  std::vector<Term> terms_;
};

template <class TokenFunction>
std::shared_ptr<const Loss> make_loss(const TokenFunction& function) {
  return std::make_shared<LossOf<TokenFunction>>(function);
}

}  // namespace orrery::learners
