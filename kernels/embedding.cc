#include "kernels/embedding.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/embedding.h"

namespace orrery::kernels {
namespace {

void check_ids(const char* op, Span<const int32_t> ids, int64_t vocab) {
  for (int64_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab) {
      fail(
          "{}: token {} has id {}, outside the vocabulary of {}; "
          "the tokenizer and the model differ",
          op, i, ids[i], vocab);
    }
  }
}

}  // namespace

void embedding_forward(const Context& ctx, Mat<float> out, Mat<const float> table,
                       Span<const int32_t> ids) {
  constexpr const char* kOp = "embedding_forward";
  require_cpu(ctx, kOp);
  require_mat(kOp, "out", out, ids.size(), table.cols);
  require_mat(kOp, "table", table, table.rows, table.cols);
  check_ids(kOp, ids, table.rows);
  const ProfileOpScope profile(ctx, "embedding", 0, f32_bytes(2 * out.size()));
  embedding_forward_cpu(ctx, out, table, ids);
}

void embedding_backward(const Context& ctx, Mat<float> dtable, Mat<const float> dout,
                        Span<const int32_t> ids) {
  constexpr const char* kOp = "embedding_backward";
  require_cpu(ctx, kOp);
  require_mat(kOp, "dout", dout, ids.size(), dtable.cols);
  require_mat(kOp, "dtable", dtable, dtable.rows, dtable.cols);
  check_ids(kOp, ids, dtable.rows);
  const ProfileOpScope profile(ctx, "embedding backward", 0, f32_bytes(3 * dout.size()));
  embedding_backward_cpu(ctx, dtable, dout, ids);
}

}  // namespace orrery::kernels
