// The tier that every processor runs: vectors of four floats (SSE2, NEON), no flags of its own.
#include "kernel/cpu/table.hpp"

namespace annulus::cpu {

const Tier* const portable_tier = &table;

}  // namespace annulus::cpu
