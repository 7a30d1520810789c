#include "learners/cuda/token_loss.h"

#include "kernels/cuda/launch.cuh"

namespace orrery::learners::cuda {

using kernels::cuda::kElementThreads;

template <class TokenFunction>
__global__ void __launch_bounds__(kElementThreads)
    token_loss_kernel(const __grid_constant__ TokenLossOp<TokenFunction> op, int64_t rows) {
  const int64_t i = int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i < rows) evaluate_row(op, i);
}

template <class TokenFunction>
void token_loss(const Context& ctx, const TokenLossOp<TokenFunction>& op) {
  const int64_t rows = op.rows.tokens.size;
  if (rows == 0) return;
  const auto blocks = static_cast<unsigned>(kernels::cuda::ceil_div(rows, kElementThreads));
  token_loss_kernel<<<blocks, kElementThreads, 0, kernels::cuda::stream_of(ctx)>>>(op, rows);
  kernels::cuda::check_launch("token_loss");
}

#define ORRERY_DEFINE(...) \
  template void token_loss(const Context&, const TokenLossOp<__VA_ARGS__>&);
ORRERY_TOKEN_LOSSES(ORRERY_DEFINE)
#undef ORRERY_DEFINE

}  // namespace orrery::learners::cuda
