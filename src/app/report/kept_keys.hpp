#pragma once
#include <optional>
#include <string>
#include <vector>

#include "annulus/store/input_file.hpp"

namespace annulus::app {

/// The axes [token, head, k] of the keys that a group keeps of every query and head. Nothing where it keeps none (--trace full does).
/// Throws Error (file) when they are others.
std::optional<Shape> shape_of_kept_keys(const InputFile& file, const std::string& group);

/// The keys with the most attention, of some queries.
struct KeptKeys {
  KeptKeys(const InputFile& file, const std::string& group, const Shape& shape, const annulus::Run& queries);

  /// Calls visit(n, head, key, share) for every key of the n-th of the queries: the one with the most attention first. Places that no key
  /// takes are left out.
  template <class Visit>
  void visit(const Visit& visit) const {
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (const auto at = static_cast<Index>(i); keys[i] >= 0)
        visit(at / (heads * kept), at / kept % heads, keys[i], shares[i]);
  }
  /// [head] queries that see a key
  std::vector<double> seeing() const;

  annulus::Run queries;
  Index heads, kept;
  std::vector<Index> keys;     ///< [query, head, k]; -1: none
  std::vector<double> shares;  ///< of the query's attention
};

}  // namespace annulus::app
