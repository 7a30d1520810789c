// Imitation: the negative log-prob of every token.
#pragma once

#include <vector>

#include "learners/losses/token.h"

namespace orrery::learners {

struct Sft {
  ORRERY_DEVICE_FN TokenLoss operator()(const LossToken& token) const {
    TokenLoss result;
    result.loss = -double{token.logp};
    result.dlogp = -1.0f;
    return result;
  }
  std::vector<Term> terms() const { return {}; }
  bool uses_reference() const { return false; }
};

}  // namespace orrery::learners
