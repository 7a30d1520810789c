// CUDA half of kernels/rows.h; arguments are already checked.
#pragma once

#include "core/span.h"
#include "kernels/rows.h"

namespace orrery::kernels::cuda {

void copy_rows(const Context& ctx, const CopyRows& op);
void round_rows(const Context& ctx, const RoundRows& op);
void gather_rows(const Context& ctx, const GatherRows& op);
void scatter_add_rows(const Context& ctx, const ScatterAddRows& op);
/// Likewise with a sum from 0 for each target of each run, which is then added to `to`,
/// run by run. `name`: the op's, for errors.
void scatter_add_runs(const Context& ctx, const char* name, const ScatterAddRows& op,
                      Span<const int64_t> run_ends);
void spread_rows(const Context& ctx, const SpreadRows& op);

}  // namespace orrery::kernels::cuda
