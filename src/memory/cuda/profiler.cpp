#include "annulus/memory/cuda.hpp"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#else  // a toolkit without it, such as one put together from Python's packages
inline void nvtxRangePushA(const char*) {}
inline void nvtxRangePop() {}
#endif

namespace annulus {

void begin_profiler_range(const std::string& name) { nvtxRangePushA(name.c_str()); }
void end_profiler_range() { nvtxRangePop(); }

}  // namespace annulus
