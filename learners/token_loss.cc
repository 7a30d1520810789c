#include "learners/token_loss.h"

#include "core/error.h"
#include "kernels/dispatch.h"
#include "learners/cuda/token_loss.h"

namespace orrery::learners {
namespace cpu {

template <class TokenFunction>
void token_loss(const Context& /*ctx*/, const TokenLossOp<TokenFunction>& op) {
  for (int64_t i = 0; i < op.rows.tokens.size; ++i) evaluate_row(op, i);
}

}  // namespace cpu

template <class TokenFunction>
void token_loss(const Context& ctx, const TokenLossOp<TokenFunction>& op) {
  const LossRows& rows = op.rows;
  for (const int64_t size :
       {rows.logprobs.size, rows.entropies.size, rows.dlogp.size, rows.dentropy.size}) {
    if (size != rows.tokens.size)
      fail("token_loss: {} tokens, but an array of {} values", rows.tokens.size, size);
  }
  kernels::dispatch<cpu::token_loss<TokenFunction>, cuda::token_loss<TokenFunction>>(
      ctx, "token_loss", op);
}

#define ORRERY_DEFINE(...) \
  template void token_loss(const Context&, const TokenLossOp<__VA_ARGS__>&);
ORRERY_TOKEN_LOSSES(ORRERY_DEFINE)
#undef ORRERY_DEFINE

}  // namespace orrery::learners
