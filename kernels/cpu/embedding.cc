#include "kernels/cpu/embedding.h"

#include <cstring>

#include "core/parallel.h"
#include "kernels/cpu/columns.h"
#include "kernels/cpu/elementwise.h"

namespace orrery::kernels {

void embedding_forward_cpu(const Context& ctx, Mat<float> out, Mat<const float> table,
                           Span<const int32_t> ids) {
  if (out.cols == 0) return;
  parallel_for(ctx, out.rows, kStreamGrain / out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(out.row(i), table.row(ids[i]), out.cols * sizeof(float));
    }
  });
}

void embedding_backward_cpu(const Context& ctx, Mat<float> dtable, Mat<const float> dout,
                            Span<const int32_t> ids) {
  parallel_columns(ctx, dout.rows, dout.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < dout.rows; ++i) {
      float* row = dtable.row(ids[i]) + begin;
      add_cpu(row, row, dout.row(i) + begin, end - begin);
    }
  });
}

}  // namespace orrery::kernels
