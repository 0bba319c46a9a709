#pragma once
#include <nccl.h>

#include <string>

namespace annulus::nccl {

/// The functions of NCCL's shared library, loaded when first asked for: the program starts without it.
struct Library {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetLastError) last_error;
  decltype(&ncclCommInitRankConfig) init_rank;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclCommFinalize) finalize;
  decltype(&ncclCommDestroy) destroy;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) recv;
  decltype(&ncclMemAlloc) allocate;
  decltype(&ncclMemFree) release;
  decltype(&ncclCommRegister) register_memory;
  decltype(&ncclCommDeregister) deregister_memory;
  std::string missing;  ///< why it cannot be used; empty when it can
};
const Library& library();

}  // namespace annulus::nccl
