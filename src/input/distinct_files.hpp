#pragma once
#include <span>
#include <string>
#include <vector>

namespace annulus {

/// The files in the order given, as absolute paths without symbolic links; one that is given twice, under whatever names,
/// stands for itself once. Throws Error (file) that names one that is missing or is not a regular file, and Error (usage)
/// when none is given.
std::vector<std::string> distinct_files(std::span<const std::string> files);

}  // namespace annulus
