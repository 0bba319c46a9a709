#include "app/context.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "annulus/transport/collectives.hpp"
#include "annulus/transport/in_process.hpp"
#include "app/backends.hpp"

namespace annulus::app {

struct Context::State {
  std::unique_ptr<Processes> launched;
  std::unique_ptr<Transport> transport;  // of the command that runs
  std::string choice = "auto";           // of --transport
  bool remarked = false;
};

Context::Context(std::vector<std::string> arguments)
    : state_(std::make_unique<State>()), arguments_(std::move(arguments)) {
  state_->launched = join_processes();
}

Context::~Context() { state_->transport.reset(); }

bool Context::under_mpi() const { return state_->launched != nullptr; }

bool Context::lead() const { return !under_mpi() || state_->launched->rank() == 0; }

int Context::ranks(Index wish, const std::string& transport) const {
  require(transport != "nccl" || nccl_missing().empty(), "--transport nccl: ", nccl_missing());
  require(wish >= 0 && wish <= 4096, "--ranks must be 1 to 4096: it is ", wish);
  if (!under_mpi()) {
    require(transport != "mpi" && transport != "shared", "--transport ", transport,
            " needs mpirun: this process was started alone");
    return std::max(1, narrow(wish));
  }
  require(transport != "threads" || state_->launched->ranks() == 1,
          "--transport threads runs in one process: mpirun started ", state_->launched->ranks());
  const int launched = state_->launched->ranks();
  require(wish == 0 || wish == launched, "--ranks ", wish, " contradicts mpirun, which started ", launched, " ranks");
  return launched;
}

void Context::agree(const std::function<std::string()>& part) {
  if (!under_mpi()) {
    part();
    return;
  }
  constexpr double patience_seconds = 60;
  std::string refusal, mine;
  state_->transport = state_->launched->transport(patience_seconds, "mpi", refusal);
  together(*state_->transport, [&] { mine = part(); });
  std::vector<std::byte> leads(reinterpret_cast<const std::byte*>(mine.data()),
                               reinterpret_cast<const std::byte*>(mine.data() + mine.size()));
  broadcast(*state_->transport, 0, leads);
  together(*state_->transport, [&] {
    const std::string_view theirs(reinterpret_cast<const char*>(leads.data()), leads.size());
    require(mine == theirs, "the file of --config must say the same to all ranks: here it says '", mine,
            "', to the first one '", theirs, "'");
  });
}

void Context::choose_transport(const std::string& choice) { state_->choice = choice; }

std::string Context::transport() const {
  if (state_->transport != nullptr) return std::string(state_->transport->name());
  return under_mpi() ? "mpi" : "threads";
}

int Context::ranks_per_node(int ranks) const { return under_mpi() ? state_->launched->ranks_per_node() : ranks; }

int Context::node_divisor(int ranks) const { return under_mpi() ? state_->launched->node_divisor() : ranks; }

int Context::cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int Context::threads_per_rank(int ranks, Index wish) const {
  if (wish > 0) return narrow(wish);
  // bound by mpirun: the cores we see are ours; unbound: they are shared by all ranks of the node
  const int node_cores = static_cast<int>(std::thread::hardware_concurrency());
  const bool bound = under_mpi() && cores() < node_cores;
  return std::max(1, bound ? cores() : cores() / std::max(1, ranks_per_node(ranks)));
}

void Context::on_every_rank(int ranks, double patience_seconds, const std::function<void(RankTools&)>& body) {
  const auto run = [&](Transport& transport, bool lead_rank) {
    CpuDevice device;
    Timeline timeline;
    timeline.watch(profiler());
    const int node_rank = under_mpi() ? state_->launched->node_rank() : transport.rank();
    const bool moves_gpu_memory = under_mpi() && state_->launched->moves_gpu_memory();
    RankTools tools{transport, device, timeline, lead_rank, node_rank, under_mpi(), moves_gpu_memory};
    try {
      body(tools);
    } catch (const std::bad_alloc&) {
      throw Error(Failure::fit, "there is not enough memory");
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      throw Error(Failure::runtime, e.what());
    }
  };
  const auto named = [&](Rank rank, const Error& e) {
    return ranks > 1 ? Error(e.failure(), sentence("rank ", rank, ": ", e.what()), e.where()) : e;
  };
  if (under_mpi()) {
    state_->transport.reset();  // before the next one: both would have memory
    std::string refusal;
    state_->transport = state_->launched->transport(patience_seconds, state_->choice, refusal);
    if (lead() && !refusal.empty() && !std::exchange(state_->remarked, true))
      std::fprintf(stderr, "annulus: %s\n", refusal.c_str());
    try {
      return run(*state_->transport, lead());
    } catch (const Agreed&) {
      throw;
    } catch (const Error& e) {
      throw named(state_->transport->rank(), e);
    }
  }
  Fabric fabric(ranks, patience_seconds);
  std::vector<std::thread> threads;
  for (Rank r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] {
      const auto transport = fabric.transport(r);
      try {
        run(*transport, r == 0);
      } catch (const Agreed& e) {
        transport->fail(e);
      } catch (const Error& e) {
        transport->fail(named(r, e));
      }
    });
  for (auto& thread : threads) thread.join();
  if (const auto failure = fabric.failure()) throw Agreed(*failure);
}

bool Context::speaks() noexcept { return state_->transport == nullptr || state_->transport->speaks(); }

void Context::abandon(const Error& error) noexcept {
  if (state_->transport != nullptr) state_->transport->fail(error);
}

void together(Transport& transport, const std::function<void()>& part) {
  std::unique_ptr<Error> mine;
  try {
    part();
  } catch (const Agreed&) {
    throw;
  } catch (const Error& e) {
    mine = std::make_unique<Error>(e);
  } catch (const std::bad_alloc&) {
    mine = std::make_unique<Error>(Failure::fit, "there is not enough memory");
  }
  try {
    agree(transport, mine.get());
  } catch (const Error& e) {
    if (e.failure() == Failure::communication && mine == nullptr) throw;
    throw Agreed(e);
  }
}

Index available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string name;
  Index kilobytes = 0;
  for (std::string unit; info >> name >> kilobytes; std::getline(info, unit))
    if (name == "MemAvailable:") return kilobytes * 1024;
  return 0;
}

}  // namespace annulus::app
