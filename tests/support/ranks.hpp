#pragma once
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "annulus/transport/in_process.hpp"

namespace annulus {

/// Runs body(transport) on `ranks` threads and rethrows the failure that came first, if any.
inline void on_ranks(int ranks, const std::function<void(Transport&)>& body, double patience_seconds = 20,
                     FaultyTransport::Faults faults = {}) {
  Fabric fabric(ranks, patience_seconds);
  std::vector<std::thread> threads;
  for (Rank r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] {
      auto transport = fabric.transport(r);
      if (faults.most_delay_seconds > 0 || faults.loss > 0)
        transport = std::make_unique<FaultyTransport>(std::move(transport), faults);
      try {
        body(*transport);
      } catch (const Error& e) {
        transport->fail(e);
      } catch (const std::exception& e) {
        transport->fail(Error(Failure::runtime, e.what()));
      }
    });
  for (auto& thread : threads) thread.join();
  if (const auto failure = fabric.failure()) throw Error(*failure);
}

}  // namespace annulus
