// Token losses on the GPU: a thread evaluates a row.
#pragma once

#include "learners/token_loss.h"

namespace orrery::learners::cuda {

/// For the losses of ORRERY_TOKEN_LOSSES.
template <class TokenFunction>
void token_loss(const Context& ctx, const TokenLossOp<TokenFunction>& op);

}  // namespace orrery::learners::cuda
