#include "transport/nccl_library.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "annulus/base/error.hpp"
#include "annulus/transport/nccl.hpp"

namespace annulus {
namespace nccl {
namespace {

template <class Function>
void find(void* handle, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function == nullptr && missing.empty()) missing = sentence("libnccl.so.2 has no ", name);
}

Library load() {
  Library l{};
  void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr)
    handle = dlopen(ANNULUS_NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL);  // where it was when this was built
  if (handle == nullptr) {
    l.missing = "libnccl.so.2 cannot be loaded";
    return l;
  }
  find(handle, "ncclGetVersion", l.get_version, l.missing);
  find(handle, "ncclGetUniqueId", l.get_unique_id, l.missing);
  find(handle, "ncclGetErrorString", l.error_string, l.missing);
  find(handle, "ncclGetLastError", l.last_error, l.missing);
  find(handle, "ncclCommInitRankConfig", l.init_rank, l.missing);
  find(handle, "ncclCommGetAsyncError", l.async_error, l.missing);
  find(handle, "ncclCommFinalize", l.finalize, l.missing);
  find(handle, "ncclCommDestroy", l.destroy, l.missing);
  find(handle, "ncclCommAbort", l.abort, l.missing);
  find(handle, "ncclGroupStart", l.group_start, l.missing);
  find(handle, "ncclGroupEnd", l.group_end, l.missing);
  find(handle, "ncclSend", l.send, l.missing);
  find(handle, "ncclRecv", l.recv, l.missing);
  find(handle, "ncclMemAlloc", l.allocate, l.missing);
  find(handle, "ncclMemFree", l.release, l.missing);
  find(handle, "ncclCommRegister", l.register_memory, l.missing);
  find(handle, "ncclCommDeregister", l.deregister_memory, l.missing);
  return l;
}

std::byte* allocate(Index bytes) {
  void* memory = nullptr;
  return library().allocate(&memory, static_cast<std::size_t>(bytes)) == ncclSuccess ? static_cast<std::byte*>(memory)
                                                                                     : nullptr;
}
void release(std::byte* memory) noexcept { library().release(memory); }

}  // namespace

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

}  // namespace nccl

std::string nccl_refusal() { return nccl::library().missing; }

std::string nccl_version() {
  if (!nccl_refusal().empty()) return "";
  int version = 0;
  nccl::library().get_version(&version);
  return sentence(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

CudaMemory nccl_memory() {
  if (!nccl_refusal().empty()) return {};
  return {nccl::allocate, nccl::release};
}

void let_nccl_share_a_gpu(Rank rank) {
  // Ranks with host names of their own look like nodes of a cluster, which talk through the network: NCCL then accepts
  // that their GPUs are the same one. Few and small buffers, since all ranks' kernels must fit beside one another.
  setenv("NCCL_HOSTID", sentence("annulus-rank-", rank).c_str(), 1);
  setenv("NCCL_NET", "Socket", 1);
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  setenv("NCCL_PROTO", "Simple", 1);
  setenv("NCCL_MAX_CTAS", "2", 1);
  setenv("NCCL_BUFFSIZE", "1048576", 1);
  for (const char* off : {"NCCL_MNNVL_ENABLE", "NCCL_NVLS_ENABLE", "NCCL_RAS_ENABLE"}) setenv(off, "0", 1);
  setenv("NCCL_IB_DISABLE", "1", 1);
}

}  // namespace annulus
