// The tensors of one module of a job (its policy, its reference), and their places in
// one flat float32 buffer. The same table describes weights, gradients and optimizer
// moments. Names are Hugging Face's.
//
// A tensor's address is (module, name), a part of it a slice: elements of the tensor in
// row-major order. Checkpoints, hashes and deliveries of weights use addresses. Where a
// tensor is in the flat buffer is a matter of this program alone.
//
// Tensors that enter one op are adjacent, a group: q, k, v of a layer (one [q + 2 kv,
// hidden] matrix), their biases, and gate, up; any other tensor is a group of its own.
// Groups start at multiples of 16 elements; the gaps between are zero in every buffer
// and stay zero.
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
  int64_t size = 0;            ///< product of shape
  bool trainable = true;       ///< as its module

 private:
  friend class ParameterTable;
  int64_t offset_ = 0;  // of the first element in the flat buffer
};

/// A slice of one tensor, and where its values are in an array that holds several
/// slices or stretches one after the other.
struct HeldSlice {
  int64_t tensor = 0;  ///< index in the table's parameters()
  Extent elements;     ///< of the tensor, row-major
  int64_t at = 0;      ///< of the first of them in the array

  friend bool operator==(const HeldSlice&, const HeldSlice&) = default;
};

/// Adjacent tensors that an op takes as one: the matrix [rows, cols] of a product, or a
/// vector [rows], of one column. Gives their part of any buffer in the table's layout
/// (weights, gradients), so that no one else needs to know where that is.
class ParameterGroup {
 public:
  ParameterGroup() = default;  ///< empty: a group that the model has none of

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  bool empty() const { return rows_ == 0; }

  template <class T>
  Mat<T> mat(Vec<T> flat) const {
    return {flat.data + offset_, rows_, cols_};
  }
  /// Empty for an empty group.
  template <class T>
  Vec<T> vec(Vec<T> flat) const {
    return empty() ? Vec<T>() : flat.part(offset_, rows_ * cols_);
  }
  Mat<float> mat(const FlatView& flat) const { return {flat.at(offset_), rows_, cols_}; }
  Vec<float> vec(const FlatView& flat) const { return {flat.at(offset_), rows_ * cols_}; }

 private:
  friend class ParameterTable;
  ParameterGroup(int64_t offset, int64_t rows, int64_t cols)
      : offset_(offset), rows_(rows), cols_(cols) {}

  int64_t offset_ = 0, rows_ = 0, cols_ = 0;
};

/// One layer's groups. qkv_bias, q_norm and k_norm are empty in a model without them.
struct LayerGroups {
  ParameterGroup input_norm, qkv, qkv_bias, q_norm, k_norm, o, post_norm, gate_up, down;
};

class ParameterTable {
 public:
  explicit ParameterTable(const ModelConfig& config, Module module = kPolicy);

  const Module& module() const { return module_; }
  std::span<const Parameter> parameters() const { return parameters_; }  ///< in buffer order
  const Parameter* find(std::string_view name) const;           ///< null when there is none
  int64_t flat_size() const { return flat_size_; }              ///< elements, gaps included
  int64_t parameter_count() const { return parameter_count_; }  ///< elements, gaps excluded

  const LayerGroups& layer(int64_t index) const { return layers_[index]; }
  const ParameterGroup& embedding() const { return embedding_; }
  const ParameterGroup& final_norm() const { return final_norm_; }
  const ParameterGroup& lm_head() const { return lm_head_; }  ///< the embedding when tied
  /// The tensor's elements of a flat buffer (Span, Vec), in row-major order.
  template <class Flat>
  Flat values(Flat flat, const Parameter& parameter) const {
    return elements_of(flat, {parameter.offset_, parameter.offset_ + parameter.size});
  }
  /// What of the tensors is in these stretches of the flat buffer, which an array holds
  /// one after the other: in the order of the array, the gaps left out.
  std::vector<HeldSlice> slices(std::span<const Extent> stretches) const;
  /// All of the flat buffer's: every tensor whole.
  std::vector<HeldSlice> slices() const;
  /// Bounds, from 0 to flat_size(), of the parts that a backward pass makes final one
  /// after the other, from the last to the first: the embedding; each layer, of which
  /// layer i begins at bound 1 + i; the final norm and an untied head.
  const std::vector<int64_t>& regions() const { return regions_; }
  /// The gaps behind groups of the region that begins at bound `region`. Whoever writes
  /// a buffer group by group has to zero them.
  const std::vector<Extent>& gaps(int64_t region) const { return gaps_[region]; }

 private:
  struct Rows {
    std::string name;
    int64_t count = 0;
  };
  /// Appends the tensors of a group, [count, cols] each, or [count] without `cols`.
  ParameterGroup add_group(std::optional<int64_t> cols, const std::vector<Rows>& tensors);
  LayerGroups add_layer(const ModelConfig& config, const std::string& prefix);
  void find_gaps();

  Module module_;
  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, size_t> by_name_;
  Array<LayerGroups> layers_;
  ParameterGroup embedding_, final_norm_, lm_head_;
  std::vector<int64_t> regions_;
  Array<std::vector<Extent>> gaps_;  // of each region
  int64_t flat_size_ = 0, parameter_count_ = 0;
};

/// Fills a flat buffer for training from scratch: normal(0, initializer_range) for
/// matrices, the two projections into the residual stream scaled by 1 / sqrt(2 layers),
/// ones for norms, zeros for biases. A function of (config, seed) alone.
void initialize_parameters(const ModelConfig& config, const ParameterTable& table, uint64_t seed,
                           Span<float> flat);

}  // namespace orrery::models
