#pragma once
#include <memory>

#include "annulus/memory/device.hpp"
#include "annulus/transport/transport.hpp"

namespace annulus {

/// Messages from and into the memory of `device`, over a transport that knows only host memory: each is copied to
/// `staging` memory, travels, and is copied back when it is waited for. Batches keep their numbers, so others of the
/// inner transport may lie in between. All three must outlive it. fail() is the inner transport's.
std::unique_ptr<Transport> make_staged_transport(Transport& inner, Device& device, Device& staging);

/// Messages from and into the memory of `device`, over a transport that reads and writes it itself, as MPI does that knows
/// CUDA. All that the device was asked for before start() is done before a byte moves. Both must outlive it.
std::unique_ptr<Transport> make_direct_transport(Transport& inner, Device& device);

}  // namespace annulus
