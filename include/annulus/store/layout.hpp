#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "annulus/store/element.hpp"

namespace annulus {

/// Where the rows of a sealed draft lie on the disk: all that a rank needs to write its own.
struct Layout {
  struct Dataset {
    std::string name;
    Shape shape;
    Index offset = 0;  ///< bytes from the start of the file to the first row
    /// Bytes of one row: everything behind the first dimension.
    Index row_bytes() const;
    bool operator==(const Dataset&) const = default;
  };
  std::string path;  ///< the draft's temporary name
  std::vector<Dataset> datasets;

  /// Throws Error (usage) when there is no such dataset.
  const Dataset& find(const std::string& name) const;
  bool operator==(const Layout&) const = default;
};

/// To bytes and back, to be sent to the other ranks: a mark, the fields, a checksum.
std::vector<std::byte> serialise(const Layout& layout);
/// Throws Error (communication) when the bytes are not a whole layout.
Layout parse_layout(std::span<const std::byte> bytes);

}  // namespace annulus
