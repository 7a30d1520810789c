// A product of the model, y = x W^T + b: where its weight and bias are in the model's
// parameters and in its gradients, and the weight's packed form. Every product with a
// weight is one, forward and backward, so that what changes a product (an adapter
// beside it, its split over ranks, one of several experts) has a single place.
#pragma once

#include <cstddef>

#include "core/context.h"
#include "core/extent.h"
#include "core/span.h"
#include "core/tensor.h"
#include "kernels/matmul.h"
#include "models/parameters.h"

namespace orrery::models {

/// Owns no memory. Thread-safe but for pack().
class Linear {
 public:
  /// weight: [outputs, inputs]. bias: [outputs], or empty. parameters: the flat buffer
  /// that holds the values, which must outlive this. dtype: of the product's operands,
  /// kF32 or kBF16.
  Linear(const ParameterGroup& weight, const ParameterGroup& bias, Vec<const float> parameters,
         DType dtype);

  const ParameterGroup& weight() const { return weight_; }
  /// Of x, of dy and of the packed weight.
  DType dtype() const { return dtype_; }
  /// For ops that have the product inside. REQUIRES: pack().
  const kernels::PackedWeight& packed() const { return packed_; }

  /// What pack() needs.
  size_t packed_bytes(Device device) const;
  /// Packs the weight's values into `memory`, 64-byte aligned. To be called again after
  /// each change of the values. The bias is read where it is.
  void pack(const Context& ctx, void* memory);

  /// y [T, outputs] = x [T, inputs] W^T + b. y may be f32 whatever the operands are.
  void forward(const Context& ctx, ActMat y, ConstActMat x) const;

  struct Backward {
    ActMat dx;                       ///< [T, inputs], overwritten; f32, or of dy's type
    ConstActMat dy;                  ///< [T, outputs]
    ConstActMat x;                   ///< [T, inputs], of the forward
    Span<const int64_t> run_ends{};  ///< as kernels::MatmulBackwardWeight has them
    Span<const int64_t> sum_runs{};  ///< as kernels::BiasBackward has them
    bool accumulate = true;          ///< to the gradients; else they are overwritten
  };
  /// Adds the gradients of bias and weight to `gradients` (flat, in the table's
  /// layout), each in row order, or writes them there; then dx = dy W.
  void backward(const Context& ctx, const Backward& op, const FlatView& gradients) const;

 private:
  ParameterGroup weight_, bias_;
  Mat<const float> weight_values_;
  Vec<const float> bias_values_;
  DType dtype_;
  kernels::PackedWeight packed_;
};

}  // namespace orrery::models
