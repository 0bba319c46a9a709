#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "kernel/agreement.hpp"

// What several calls of a kernel have to do with one another, and with the engine between them.

namespace annulus::test {
namespace {

// In one call or in two, from scratch or on top of what other keys gave, rows that no tile holds included.
TEST(Tiled, ForwardAndFinishIsForwardAndThenFinish) {
  for (const Layout& layout : layouts())
    for (const std::string& tier : runnable_tiers())
      for (const int calls : {1, 2}) {
        SCOPED_TRACE(sentence(layout.name, ", ", tier, ", ", calls, " calls"));
        const Inputs in(problem_of(24, 40, DType::f32), layout.queries, layout.keys, 35);
        const auto kernel = make_tiled_kernel(in.problem, {.threads = 2}, tier);
        const auto half = static_cast<std::ptrdiff_t>(layout.tiles.size() / 2);
        const std::span<const Tile> all(layout.tiles), first = all.first(calls == 1 ? 0 : half),
                                                       rest = all.subspan(first.size());
        ForwardResult apart = forward_by(*kernel, first, in, in.v), at_once = forward_by(*kernel, {}, in, in.v);
        at_once.partial.out.fill(std::numeric_limits<double>::quiet_NaN());  // the kernel need not clear it
        kernel->reset(at_once.partial.view());
        kernel->forward(first, in.q, {in.k, in.v}, at_once.partial.view());
        kernel->forward(rest, in.q, {in.k, in.v}, apart.partial.view());
        kernel->finish(apart.partial.view(), apart.partial.view().top);
        kernel->forward_and_finish(rest, in.q, {in.k, in.v}, at_once.partial.view());
        for (Index i = 0; i < in.queries(); ++i)
          for (Index h = 0; h < in.problem.query_heads; ++h) {
            const double lse = apart.partial.top.at(i, h);
            if (lse == minus_infinity) {
              EXPECT_EQ(at_once.partial.top.at(i, h), lse);
            } else {
              EXPECT_NEAR(at_once.partial.top.at(i, h), lse, 0x1p-22 * (1 + std::abs(lse)));
            }
            for (Index c = 0; c < 40; ++c)
              ASSERT_NEAR(at_once.partial.out.at(i, h, c), apart.partial.out.at(i, h, c),
                          0x1p-22 * std::abs(apart.partial.out.at(i, h, c)))
                  << "row " << i << " head " << h << " channel " << c;
          }
      }
}

// Whichever thread's turn it was when it ended, nobody waits for work that is not done.
TEST(Tiled, PausesSayHowFarItIsAndMayEndIt) {
  const Inputs in(problem_of(32, 24, DType::f32), 900, 300, 13);
  const std::vector<Tile> tiles{tile({0, 900}, {0, 300}, {-far, 0})};
  const Truth truth(tiles, in);
  const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
  struct Enough {};
  for (const std::string& tier : runnable_tiers())
    for (const int threads : {1, 3}) {
      const auto kernel = make_tiled_kernel(in.problem, {.threads = threads}, tier);
      GradientSheets gradients(DType::f32, in, 0);
      for (Sheet* sheet : {&gradients.dq, &gradients.dk, &gradients.dv}) sheet->fill(0);
      ObservationSheets traces(DType::f32, in, 3, 16, 0);
      const std::thread::id caller = std::this_thread::get_id();
      const std::pair<const char*, std::function<void()>> passes[] = {
          {"forward", [&] { forward_by(*kernel, tiles, in, in.v); }},
          {"backward", [&] { kernel->backward(tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, gradients.view()); }},
          {"observe", [&] { kernel->observe(tiles, in.q, in.k, lse, traces.view()); }}};
      for (const auto& [name, pass] : passes) {
        SCOPED_TRACE(sentence(tier, ", ", name, ", threads = ", threads));
        double share = 0;
        EXPECT_TRUE(kernel->pause_with([&](double now) {
          EXPECT_EQ(std::this_thread::get_id(), caller);
          EXPECT_GE(now, share);
          EXPECT_LE(now, 1);
          share = now;
        }));
        pass();
        if (threads == 1) {
          EXPECT_EQ(share, 1);
        }
        kernel->pause_with([](double) { throw Enough{}; });
        if (threads == 1) {
          EXPECT_THROW(pass(), Enough);
        } else {
          try {
            pass();
          } catch (const Enough&) {  // unless other threads had taken all work
          }
        }
        kernel->pause_with({});
        EXPECT_NO_THROW(pass());
      }
    }
}

TEST(Tiled, StateCarriesAcrossCalls) {
  const Inputs in(problem_of(32, 24, DType::f32), 100, 300, 13);
  const std::vector<Tile> all{tile({0, 100}, {0, 300}, {-far, 200})};
  const Truth truth(all, in);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    const auto kernel = make_tiled_kernel(in.problem, {}, tier);
    ForwardResult carried{{DType::f32, 100, 3, 24}, {DType::f32, 100, 3, 1}};
    for (const Range keys : {Range{150, 300}, Range{0, 70}, Range{70, 150}}) {
      const std::vector<Tile> part{tile({0, 100}, keys, {-far, 200 - keys.begin})};
      kernel->forward(part, in.q, {in.k, in.v}, carried.partial.view());
    }
    finish(carried.partial.view(), carried.lse);
    for (Index i = 0; i < 100; ++i)
      for (Index h = 0; h < 3; ++h) {
        EXPECT_NEAR(carried.lse.at(i, h), truth.forward.lse.at(i, h), coarseness(*kernel) * 1e-5);
        for (Index c = 0; c < 24; ++c)
          ASSERT_NEAR(carried.partial.out.at(i, h, c), truth.forward.partial.out.at(i, h, c),
                      coarseness(*kernel) * (forward_bound * truth.magnitude.value->partial.out.at(i, h, c) + 1e-7));
      }
  }
}

TEST(Tiled, PartialsOfDisjointKeysMerge) {
  const Inputs in(problem_of(32, 24, DType::f32), 60, 200, 14, 3);
  const std::vector<Tile> all{tile({0, 60}, {0, 200})};
  const Truth truth(all, in);
  for (const std::string& tier : runnable_tiers()) {
    const auto kernel = make_tiled_kernel(in.problem, {}, tier);
    const std::vector<Tile> first{tile({0, 60}, {0, 90})}, second{tile({0, 60}, {90, 200})};
    ForwardResult a = forward_by(*kernel, first, in, in.v), b = forward_by(*kernel, second, in, in.v);
    merge(a.partial.view(), b.partial.view());
    finish(b.partial.view(), b.lse);
    // scores reach 30 here, so that their rounding alone is 30 u sqrt(32)
    for (Index i = 0; i < 60; ++i)
      for (Index c = 0; c < 24; ++c)
        ASSERT_NEAR(b.partial.out.at(i, 1, c), truth.forward.partial.out.at(i, 1, c), 1e-5 * coarseness(*kernel))
            << tier;
  }
}

TEST(Tiled, RowsOutsideTheTilesAreNotWritten) {
  const Layout layout = layouts().back();
  const Inputs in(problem_of(20, 12, DType::f32), layout.queries, layout.keys, 15);
  const Truth truth(layout.tiles, in);
  const std::vector<bool> q_hit = touched(layout.tiles, layout.queries),
                          k_hit = touched(layout.tiles, layout.keys, true);
  for (const std::string& tier : runnable_tiers()) {
    SCOPED_TRACE(tier);
    const auto kernel = make_tiled_kernel(in.problem, {}, tier);
    PartialSheets partial(DType::f32, layout.queries, 3, 12, 2);
    GradientSheets gradients(DType::f32, in, 2);
    const auto poison = [](Sheet& sheet, const std::vector<bool>& hit) {
      sheet.each([&](Index i, Index h, Index c) {
        return hit[static_cast<std::size_t>(i)] ? sheet.at(i, h, c) : std::numeric_limits<double>::quiet_NaN();
      });
    };
    for (Sheet* sheet : {&partial.out, &partial.top, &partial.sum, &gradients.dq}) poison(*sheet, q_hit);
    for (Sheet* sheet : {&gradients.dk, &gradients.dv}) poison(*sheet, k_hit);
    const PartialSheets before = partial;
    const GradientSheets gradients_before = gradients;
    const Sheet lse = rounded(truth.forward.lse), delta = rounded(truth.delta);
    kernel->forward(layout.tiles, in.q, {in.k, in.v}, partial.view());
    kernel->backward(layout.tiles, {in.q, in.dout, lse, delta}, {in.k, in.v}, gradients.view());
    const auto untouched = [](const Sheet& now, const Sheet& then, const std::vector<bool>& hit) {
      for (Index i = 0; i < now.rows().tokens; ++i) {
        const bool same = std::memcmp(now.rows().at<float>(i), then.rows().at<float>(i),
                                      static_cast<std::size_t>(now.rows().row_bytes())) == 0;
        EXPECT_TRUE(same || hit[static_cast<std::size_t>(i)]) << "row " << i;
        EXPECT_EQ(std::isnan(now.at(i, 0, 0)), !hit[static_cast<std::size_t>(i)]) << "row " << i;
      }
    };
    untouched(partial.out, before.out, q_hit);
    untouched(partial.top, before.top, q_hit);
    untouched(partial.sum, before.sum, q_hit);
    untouched(gradients.dq, gradients_before.dq, q_hit);
    untouched(gradients.dk, gradients_before.dk, k_hit);
    untouched(gradients.dv, gradients_before.dv, k_hit);
  }
}

}  // namespace
}  // namespace annulus::test
