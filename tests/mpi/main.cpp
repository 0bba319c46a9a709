#include <gtest/gtest.h>

#include <cstring>
#include <string_view>

#include "annulus/transport/collectives.hpp"
#include "annulus/transport/mpi.hpp"
#include "mpi/session.hpp"

// The tests of this program are run by all ranks of an mpirun together. After each test all ranks agree on its result,
// so a failure on one rank stops all of them in the same place and nobody waits for somebody who left.

namespace annulus {

std::unique_ptr<Transport> mpi_test_transport;
const MpiSession* mpi_test_session;

namespace {

class Agreement final : public testing::EmptyTestEventListener {
  void OnTestEnd(const testing::TestInfo& info) override {
    double failed = info.result()->Failed() ? 1 : 0;
    all_max(*mpi_test_transport, {&failed, 1});
    if (failed > 0 && !info.result()->Failed())
      std::fprintf(stderr, "rank %d: %s failed on another rank\n", mpi_test_transport->rank(), info.name());
    any_failed = any_failed || failed > 0;
  }

 public:
  bool any_failed = false;
};

}  // namespace
}  // namespace annulus

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const annulus::MpiSession session;
  annulus::mpi_test_session = &session;
  // small pieces, so that cutting long messages is tested with messages of ordinary length
  const annulus::MpiOptions options{30, 100'003};
  const bool shared = argc > 1 && std::string_view(argv[1]) == "shared";
  annulus::mpi_test_transport =
      shared ? annulus::make_shared_transport(session, options) : annulus::make_mpi_transport(session, options);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (session.rank() != 0) delete listeners.Release(listeners.default_result_printer());
  auto* agreement = new annulus::Agreement;
  listeners.Append(agreement);
  int failed = RUN_ALL_TESTS();
  if (agreement->any_failed) failed = 1;
  annulus::mpi_test_transport.reset();
  return failed;
}
