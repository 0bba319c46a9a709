#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <string_view>
#include <thread>

#include "annulus/transport/collectives.hpp"
#include "annulus/transport/mpi.hpp"

// How sessions begin and end, and what of it ends the job: a case per run, named by the first argument.

namespace {

using namespace annulus;

std::unique_ptr<Transport> transport_of(const MpiSession& session, std::string_view kind) {
  const MpiOptions options{30};
  return kind == "shared" ? make_shared_transport(session, options) : make_mpi_transport(session, options);
}

bool refused() {
  try {
    const MpiSession session;
  } catch (const Error& e) {
    return e.failure() == Failure::communication;
  }
  return false;
}

// MPI that runs already is used and left as it is, an exception through the session or not; it ends once.
bool mpi_of_somebody_else(std::string_view kind) {
  int level = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level);
  bool right = false;
  try {
    const MpiSession session, another;
    right = !session.takes_turns() && session.ranks() == another.ranks();
    barrier(*transport_of(session, kind));
    throw 1;
  } catch (int) {
  }
  right = MPI_Barrier(MPI_COMM_WORLD) == MPI_SUCCESS && right;
  MPI_Finalize();
  return right && refused();
}

// The others wait for a rank that has left.
void one_leaves(std::string_view kind) {
  const MpiSession session;
  const auto transport = transport_of(session, kind);
  barrier(*transport);
  if (session.rank() == 1) throw Error(Failure::runtime, "rank 1 leaves");
  barrier(*transport);
}

// A message that is shorter than its receiver expects: the receiver says so and ends the job.
void a_short_message(std::string_view kind) {
  const MpiSession session;
  const auto transport = transport_of(session, kind);
  CpuDevice plain;
  const Array values = Array::zeros(lending(*transport, plain), DType::f32, 1000, 1, 1);
  if (session.rank() == 1) {
    const Send send{0, values.rows().span(0, 500)};
    transport->start({&send, 1}, {}).wait();
    std::this_thread::sleep_for(std::chrono::seconds(30));  // until the other one ends the job
    return;
  }
  const Recv recv{1, values.rows().span(0, 1000)};
  try {
    transport->start({}, {&recv, 1}).wait();
  } catch (const Error& e) {
    std::printf("%s\n", e.what());
    std::fflush(stdout);
    transport->fail(e);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "", kind = argc > 2 ? argv[2] : "mpi";
  if (what == "adopted") return mpi_of_somebody_else(kind) ? 0 : 1;
  try {
    if (what == "short") {
      a_short_message(kind);
    } else {
      one_leaves(kind);
    }
  } catch (const Error&) {
  }
  return 1;
}
