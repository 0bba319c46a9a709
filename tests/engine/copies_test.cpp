#include <gtest/gtest.h>

#include "annulus/transport/staged.hpp"
#include "kernel/support.hpp"
#include "support/engine_errors.hpp"

namespace annulus {
namespace {

// Host memory that counts the bytes that are copied inside it, under the name of any place.
class CountingDevice final : public Device {
 public:
  explicit CountingDevice(Place place) : place_(place) {}
  Place place() const override { return place_; }
  std::string name() const override { return "counting"; }
  std::byte* allocate(Index bytes) override { return cpu_.allocate(bytes); }
  void release(std::byte* memory, Index bytes) noexcept override { cpu_.release(memory, bytes); }
  void zero(std::byte* memory, Index bytes) override { cpu_.zero(memory, bytes); }
  void copy(std::byte* to, const std::byte* from, Index bytes) override { cpu_.copy(to, from, bytes); }
  void copy_rows(const Rows& from, const Rows& to) override {
    if (from.place == place_ && to.place == place_) copied += from.bytes();
    annulus::copy_rows(from, to);
  }
  Index copied = 0;

 private:
  Place place_;
  CpuDevice cpu_;
};

const AttentionShape shape{2, 2, 4, 6, DType::f32, 0.5};

// All bytes copied between rows of the own memory in one forward pass over K and V that lie apart, with gaps: the most of
// all ranks. The results are right.
Index most_copied(const Grid& grid, const Dense& dense) {
  const Schedule job = make_schedule(grid, "contiguous", dense.mask);
  Index most = 0;
  std::mutex lock;
  on_ranks(grid.ranks(), [&](Transport& transport) {
    const Rank r = transport.rank();
    CountingDevice device(Place::cpu);
    Timeline timeline;
    const auto kernel = reference32(problem_of(shape, grid, 0, dense.mask.query_shift()));
    Attention attention(job, shape, {device, *kernel, transport, timeline});
    const Array q = take(device, dense.q, DType::f32, job.queries, r, 2, 4),
                k = take(device, dense.k, DType::f32, job.keys, r, 2, 4),
                v = take(device, dense.v, DType::f32, job.keys, r, 2, 6);
    const test::Sheet far_k(DType::f32, job.keys.rows(r), 2, 4, 3), far_v(DType::f32, job.keys.rows(r), 2, 6, 1);
    copy_rows(k, far_k);
    copy_rows(v, far_v);
    const Array out(device, DType::f32, job.queries.rows(r), 2, 6), lse(device, DType::f32, job.queries.rows(r), 2, 1);
    attention.forward(q, {far_k, far_v}, out, lse);
    EXPECT_LE(error_of(out, dense.out, job.queries, r), 1e-6);
    const std::lock_guard guard(lock);
    most = std::max(most, device.copied);
  });
  return most;
}

TEST(Copies, KeysAndValuesThatStayAreNotCopied) {
  const Dense dense = make_dense(shape, Mask::parse("causal", {2, 400}), 4);
  const Index shard = 200 * 2 * (4 + 6) * 4, queries_and_results = 4096;
  EXPECT_EQ(most_copied({1, 1, 1}, dense), 0);
  for (const Travel travel : {Travel::queries, Travel::tree})
    EXPECT_LT(most_copied({1, 2, 1, travel}, dense), queries_and_results);
  EXPECT_GE(most_copied({1, 2, 1}, dense), shard) << "those that travel are brought side by side";
}

// To a GPU keys and values go side by side at once, and their gradients come from there so.
TEST(Copies, OnADeviceNothingIsCopiedAgain) {
  const Dense dense = make_dense(shape, Mask::parse("causal", {40, 40}), 4);
  for (const Grid& grid : {Grid{1, 1, 1}, Grid{1, 2, 1}})
    on_ranks(grid.ranks(), [&](Transport& inner) {
      CountingDevice device(Place::cuda);
      CpuDevice host;
      const auto transport = make_staged_transport(inner, device, host);
      const Schedule job = make_schedule(grid, "zigzag", dense.mask);
      EXPECT_LE(engine_errors(dense, job, reference32, *transport, device).worst(), 5e-6);
      EXPECT_EQ(device.copied, job.keys.rows(inner.rank()) * 2 * 4) << "received mass, in observe";
    });
}

}  // namespace
}  // namespace annulus
