// An answer in a form that can be compared: a number with its unit if it is one, else
// LaTeX, element by element. 0.5 equals \frac12, (1, 0.5) equals
// \left(1,\frac{1}{2}\right), x = 5 equals 5, and 5\text{ cm} equals 5 but not 5 m.
// Texts that are written alike are equal; two answers that mean different things never
// are.
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
  std::string name;                  ///< "x=" of "x = ...", "x\in " of "x \in ..."; mostly empty
  std::optional<Quantity> quantity;  ///< the whole as a quantity, if it is one
  std::string unit;                  ///< the unit of any other expression: 16\pi\text{ cm}
  /// The elements of a list, a tuple, an interval or a matrix, and what stands between
  /// them.
  std::vector<Element> elements;
  bool empty() const;
};

/// Reads an answer, which is plain_text().
Expression parse_expression(std::string_view plain);

/// Whether two answers say the same. An empty one never does.
bool same(const Expression& a, const Expression& b);

}  // namespace orrery::actors
