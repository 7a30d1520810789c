// The tensors of one module of a job (its policy, its reference), and their places in
// one flat float32 buffer. The same table describes weights, gradients and optimizer
// moments. Names are Hugging Face's.
//
// A tensor's address is (module, name), a part of it a slice: elements of the tensor in
// row-major order. Checkpoints, hashes and deliveries of weights use addresses. Where a
// tensor is in the flat buffer is a matter of this program alone.
//
// q, k, v of a layer are adjacent (one [q + 2 kv, hidden] matrix), so are their biases,
// and gate, up: one product each. Groups start at multiples of 16 elements; the gaps
// between are zero in every buffer and stay zero.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/extent.h"
#include "core/span.h"
#include "core/tensor.h"
#include "models/config.h"

namespace orrery::models {

/// One of a job's modules. One that is not trainable has weights alone: no gradient, no
/// moments.
struct Module {
  std::string name;
  bool trainable = true;

  friend bool operator==(const Module&, const Module&) = default;
};
inline const Module kPolicy{"policy", /*trainable=*/true};
inline const Module kReference{"reference", /*trainable=*/false};

struct Parameter {
  std::string name;            ///< "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  ///< [out, in] or [n]
  int64_t offset = 0;          ///< elements from the start of the flat buffer
  int64_t size = 0;            ///< product of shape
  bool trainable = true;       ///< as its module
};

/// A slice of one tensor, and where its values are in an array that holds several
/// slices or stretches one after the other.
struct HeldSlice {
  int64_t tensor = 0;  ///< index in the table's parameters()
  Extent elements;     ///< of the tensor, row-major
  int64_t at = 0;      ///< of the first of them in the array

  friend bool operator==(const HeldSlice&, const HeldSlice&) = default;
};

/// Offsets of one layer's groups.
struct LayerOffsets {
  int64_t input_norm, qkv, qkv_bias, q_norm, k_norm, o, post_norm, gate_up, down;
};

class ParameterTable {
 public:
  explicit ParameterTable(const ModelConfig& config, Module module = kPolicy);

  const Module& module() const { return module_; }
  std::span<const Parameter> parameters() const { return parameters_; }  ///< in buffer order
  const Parameter* find(std::string_view name) const;           ///< null when there is none
  int64_t flat_size() const { return flat_size_; }              ///< elements, gaps included
  int64_t parameter_count() const { return parameter_count_; }  ///< elements, gaps excluded

  const LayerOffsets& layer(int64_t index) const { return layers_[index]; }
  int64_t embedding() const { return embedding_; }
  int64_t final_norm() const { return final_norm_; }
  int64_t lm_head() const { return lm_head_; }  ///< the embedding's when tied
  /// The tensor's elements of a flat buffer (Span, Vec), in row-major order.
  template <class Flat>
  Flat values(Flat flat, const Parameter& parameter) const {
    return elements_of(flat, {parameter.offset, parameter.offset + parameter.size});
  }
  /// What of the tensors is in these stretches of the flat buffer, which an array holds
  /// one after the other: in the order of the array, the gaps left out.
  std::vector<HeldSlice> slices(std::span<const Extent> stretches) const;
  /// All of the flat buffer's: every tensor whole.
  std::vector<HeldSlice> slices() const;
  /// Bounds, from 0 to flat_size(), of the parts that a backward pass makes final one
  /// after the other, from the last to the first: the embedding; each layer; the final
  /// norm and an untied head.
  std::vector<int64_t> regions() const;

 private:
  Module module_;
  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, size_t> by_name_;
  Array<LayerOffsets> layers_;
  int64_t embedding_ = 0, final_norm_ = 0, lm_head_ = 0, flat_size_ = 0, parameter_count_ = 0;
};

/// Fills a flat buffer for training from scratch: normal(0, initializer_range) for
/// matrices, the two projections into the residual stream scaled by 1 / sqrt(2 layers),
/// ones for norms, zeros for biases. A function of (config, seed) alone.
void initialize_parameters(const ModelConfig& config, const ParameterTable& table, uint64_t seed,
                           Span<float> flat);

}  // namespace orrery::models
