#include <gtest/gtest.h>

#include <cstdio>

#include "annulus/kernel/cuda.hpp"
#include "annulus/transport/mpi.hpp"
#include "annulus/transport/nccl.hpp"
#include "annulus/transport/staged.hpp"
#include "support/engine_errors.hpp"
#include "transport/contract.hpp"

// NCCL between the ranks of an mpirun: one GPU each where there are enough, else all on one. MPI connects them.

namespace annulus {
namespace {

struct Ranks {
  MpiSession session;
  std::unique_ptr<Transport> mpi = make_mpi_transport(session, {60});
  bool shared = false;
  std::unique_ptr<Device> device;
  std::unique_ptr<Transport> nccl;
  void connect() {
    const int gpus = static_cast<int>(cuda_gpus().size());
    shared = session.ranks_per_node() > gpus;
    if (shared) let_nccl_share_a_gpu(session.rank());
    device = make_cuda_device(session.node_rank() % gpus, nccl_memory());
    nccl = make_nccl_transport(*mpi, *device, {60, 0, shared});
  }
};
Ranks* ranks = nullptr;

TEST(Nccl, KeepsTheContractOfTransports) {
  // the contract's messages lie in host memory: they are staged on the GPU
  contract::everything(*make_staged_transport(*ranks->nccl, *ranks->device, *ranks->device));
}

TEST(Nccl, EveryStrategyIsExactInFloat64) {
  const AttentionShape shape{6, 3, 5, 4, DType::f64, 0.4};
  const int size = ranks->session.ranks();
  for (const char* terms : {"causal", "causal+window:5,0+sink:2"}) {
    const Mask mask = Mask::parse(terms, {37, 37});
    const Dense dense = make_dense(shape, mask, 5);
    for (const Grid& grid : {Grid{1, size, 1}, Grid{size, 1, 1}, Grid{1, size, 1, Travel::gather},
                             Grid{1, size, 1, Travel::queries}, Grid{1, size, 1, Travel::tree}}) {
      const MakeKernel simt = [&](const Problem& p) { return make_cuda_simt_kernel(p, *ranks->device); };
      const Errors errors =
          engine_errors(dense, make_schedule(grid, "zigzag", mask), simt, *ranks->nccl, *ranks->device);
      EXPECT_LE(errors.worst(), 1e-12) << mask.name() << " " << to_text(grid);
    }
  }
}

TEST(Nccl, TwoRanksWithOneGpuAreRefusedByName) {
  if (!ranks->shared) GTEST_SKIP() << "every rank has a GPU of its own";
  try {
    make_nccl_transport(*ranks->mpi, *ranks->device, {10});
    FAIL() << "nobody noticed";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("have the same GPU"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace annulus

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  annulus::Ranks all;
  const std::string missing = annulus::cuda_refusal().empty() ? annulus::nccl_refusal() : annulus::cuda_refusal();
  if (!missing.empty()) {
    if (all.session.rank() == 0) std::printf("skipped: %s\n", missing.c_str());
    return 0;
  }
  all.connect();
  annulus::ranks = &all;
  if (all.session.rank() != 0)
    delete testing::UnitTest::GetInstance()->listeners().Release(
        testing::UnitTest::GetInstance()->listeners().default_result_printer());
  double failed = RUN_ALL_TESTS();
  annulus::all_max(*all.mpi, {&failed, 1});
  return failed > 0 ? 1 : 0;
}
