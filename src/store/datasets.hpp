#pragma once
#include <span>
#include <string>

#include "annulus/store/draft.hpp"
#include "hdf5.hpp"

namespace annulus::store {

/// How files are opened to be written. V18 object headers carry checksums and hold attributes of any length; the
/// superblock stays readable for old readers. Datasets start at multiples of 4096 bytes, so that ranks do not share
/// pages at their borders.
Id access_to_write(const std::string& what);

/// Throws Error (usage) for dimensions that are negative, overflow or do not match their names.
void check_plan(const DatasetPlan& plan, const std::string& what);
/// Creates the dataset with its groups, names and units: contiguous, allocated now, never filled.
void create_rows(hid_t file, const DatasetPlan& plan, const std::string& what);
/// The same for a view of other files' rows. Where one of them is missing, readers find NaN.
void create_view(hid_t file, const DatasetPlan& plan, std::span<const RowSource> sources, const std::string& what);
/// Creates a small dataset and writes `count` values of the type `memory`.
void write_whole(hid_t file, const DatasetPlan& plan, const Id& memory, const void* values, std::size_t count,
                 const std::string& what);
/// Where the rows of a contiguous dataset lie.
Layout::Dataset place_of_rows(hid_t file, const std::string& name, const std::string& what);

}  // namespace annulus::store
