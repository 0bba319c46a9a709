#pragma once
#include <memory>

#include "annulus/transport/mpi.hpp"

namespace annulus {
/// The transport of this process, made by the main program of the tests.
extern std::unique_ptr<Transport> mpi_test_transport;
extern const MpiSession* mpi_test_session;
}  // namespace annulus
