// A profiler for profiler_test.py: NVTX loads it where NVTX_INJECTION64_PATH names it. It writes what begins and ends on which
// thread, a line each, into the file that ANNULUS_RANGES names.
#include <nvtx3/nvToolsExt.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace {

std::FILE* file() {
  static std::FILE* opened = std::fopen(std::getenv("ANNULUS_RANGES"), "w");
  return opened;
}

int thread() {
  static std::atomic<int> threads = 0;
  thread_local const int number = threads++;
  return number;
}

int begin(const char* name) { return std::fprintf(file(), "%d begin %s\n", thread(), name); }
int end() { return std::fprintf(file(), "%d end\n", thread()); }

}  // namespace

extern "C" __attribute__((visibility("default"))) int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t export_table) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(export_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned entries = 0;
  if (file() == nullptr || callbacks == nullptr) return 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &table, &entries) == 0) return 0;
  *table[NVTX_CBID_CORE_RangePushA] = reinterpret_cast<NvtxFunctionPointer>(begin);
  *table[NVTX_CBID_CORE_RangePop] = reinterpret_cast<NvtxFunctionPointer>(end);
  return 1;
}
