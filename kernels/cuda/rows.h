// CUDA half of kernels/rows.h; arguments are already checked.
#pragma once

#include "kernels/rows.h"

namespace orrery::kernels::cuda {

void copy_rows(const Context& ctx, const CopyRows& op);
/// An Error: activations of a CUDA device are f32.
void round_rows(const Context& ctx, const RoundRows& op);
void gather_rows(const Context& ctx, const GatherRows& op);
void scatter_add_rows(const Context& ctx, const ScatterAddRows& op);
void spread_rows(const Context& ctx, const SpreadRows& op);

}  // namespace orrery::kernels::cuda
