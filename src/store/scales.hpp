#pragma once
#include <cstdint>
#include <string>

#include "annulus/store/draft.hpp"
#include "hdf5.hpp"

namespace annulus::store {

/// Makes the scale of a dimension that has a name and a length, but no values: what netCDF calls a dimension that is not a
/// variable. It is never filled, and takes no room but its header.
void create_dimension(hid_t file, const std::string& path, Index length, const std::string& what);

/// Gives the dataset plan.name its dimensions: labels, and scales as netCDF has them. The scale of a name is the one in the
/// dataset's own group or, if there is none, in the nearest group above that fits the length; otherwise it is made in its own
/// group. A dataset of one dimension that is named as this dimension becomes its scale: it holds the coordinates.
/// Throws Error (usage) when the name has another length in the same group.
void name_dimensions(hid_t file, const DatasetPlan& plan, hid_t dataset, const std::string& what);

enum class ScaleKind : std::uint8_t { none, with_values, bare };
/// Whether this is a scale; bare: without values, by this program or by netCDF. Never throws.
ScaleKind scale_kind(hid_t object) noexcept;

}  // namespace annulus::store
