// What an answer says, in a form that can be compared: as a number with its unit where
// it is one, else as LaTeX, element by element. 0.5 equals \frac12, (1, 0.5) equals
// \left(1,\frac{1}{2}\right), x = 5 equals 5, 5\text{ cm} equals 5 but not 5 m. Text
// that is written alike is equal; two answers that mean different things never are.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/envs/quantity.h"

namespace orrery::actors {

struct Expression {
  struct Element {
    std::string text;  ///< canonical_latex
    std::optional<Quantity> quantity;
  };
  std::string name;                  ///< of "x = ...", "x \in ..."; mostly empty
  std::optional<Quantity> quantity;  ///< of the whole
  std::string unit;                  ///< of another expression than a quantity: 16\pi\text{ cm}
  std::vector<Element>
      elements;  ///< of a list, a tuple, an interval, a matrix, with what stands between them
  bool empty() const;
};

/// Takes plain_text().
Expression parse_expression(std::string_view plain);

/// Never true of empty ones.
bool same(const Expression& a, const Expression& b);

}  // namespace orrery::actors
