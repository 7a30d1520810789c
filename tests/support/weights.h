// The weights of a model as the host's numbers.
#pragma once

#include <vector>

#include "models/transformer.h"
#include "tests/support/test_device.h"

namespace orrery::testing_support {

/// All of them, in the layout of model.table().
inline std::vector<float> weights_of(const Context& ctx, const models::Transformer& model) {
  return downloaded(ctx, model.parameters());
}

/// The model is stale until pack().
inline void set_weights(const Context& ctx, models::Transformer& model,
                        const std::vector<float>& values) {
  upload(ctx, model.write_parameters(), Span<const float>(values));
}

/// `change` gets the weights as a std::vector. The model is stale until pack().
template <class Change>
void change_weights(const Context& ctx, models::Transformer& model, const Change& change) {
  std::vector<float> values = weights_of(ctx, model);
  change(values);
  set_weights(ctx, model, values);
}

/// Weights from the seed. The model is stale until pack().
inline void initialize_weights(const Context& ctx, models::Transformer& model, uint64_t seed) {
  change_weights(ctx, model, [&](std::vector<float>& values) {
    models::initialize_parameters(model.config(), model.table(), seed, values);
  });
}

}  // namespace orrery::testing_support
