#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "annulus/memory/rows.hpp"
#include "kernel/cuda_emulator/cuda.hpp"

// Host twins of src/kernel/cuda/hopper.cuh: same names, same meaning, by the PTX manual. Copies land and products are
// computed as late as the program allows; until then their targets are NaN.

namespace annulus::cuda {

struct TensorMap {
  Rows rows;
  int box_rows = 0;
};

/// The 128-byte swizzle: bits 4 to 6 of an address are exchanged by bits 7 to 9.
inline std::uint32_t swizzled(std::uint32_t address) { return address ^ (address >> 3 & 0x70); }

struct PanelCopy {
  std::uint32_t to;
  TensorMap map;
  int channel, head, row;
};

struct MemoryBarrier {
  int count = 0, pending = 0;
  std::int64_t bytes = 0;      // announced and not here yet
  std::uint32_t phases = 0;    // that are over
  emulator::Clock open, done;  // seen by who has arrived in this phase, and before
  std::vector<PanelCopy> under_way;

  void end_phase() {
    if (pending > 0 || bytes != 0) return;
    ++phases;
    pending = count;
    done.join(open);
  }
};

/// What the copy engine and the barriers of a block know.
struct CopyEngine {
  std::map<std::uint32_t, MemoryBarrier> barriers;
  std::uint32_t time = 1;                      // of the engine's own writes
  std::map<int, std::uint32_t> stores_fenced;  // by thread: stores up to then may be read by products

  MemoryBarrier& barrier(std::uint32_t address) {
    const auto found = barriers.find(address);
    if (found == barriers.end()) emulator::fail("no memory barrier has been made at ", address);
    return found->second;
  }
  /// One copy, any of those under way, is here.
  void land_one(MemoryBarrier& barrier) {
    std::swap(barrier.under_way[emulator::random_below(static_cast<unsigned>(barrier.under_way.size()))],
              barrier.under_way.back());
    const PanelCopy copy = barrier.under_way.back();
    barrier.under_way.pop_back();
    const Rows& rows = copy.map.rows;
    const int engine = emulator::threads();
    emulator::Clock now = emulator::nothing_seen();
    now.of(engine) = time++;
    for (int r = 0; r < copy.map.box_rows; ++r)
      for (int chunk = 0; chunk < 8; ++chunk) {
        std::array<std::uint16_t, 8> values{};
        const Index row = copy.row + r, channel = copy.channel + 8 * chunk;
        if (row >= 0 && row < rows.tokens && copy.head >= 0 && copy.head < rows.heads)
          for (Index c = 0; c < 8 && channel + c < rows.channels; ++c)
            values[static_cast<std::size_t>(c)] = rows.at<std::uint16_t>(row, copy.head)[channel + c];
        emulator::shared_memory().land(swizzled(copy.to + static_cast<std::uint32_t>(r * 128 + chunk * 16)), 16,
                                       reinterpret_cast<const std::byte*>(values.data()), engine, now);
      }
    barrier.open.join(now);
    barrier.bytes -= copy.map.box_rows * 128;
    barrier.end_phase();
  }
};

inline CopyEngine& copy_engine() { return emulator::block_state<CopyEngine>(); }

// --- memory barriers --------------------------------------------------------------------------------------------------

inline void memory_barrier_init(std::uint32_t barrier, int count) {
  if (barrier % 8 != 0 || count < 1) emulator::fail("a memory barrier at ", barrier, " for ", count, " threads");
  const std::uint64_t opaque = 0;
  emulator::shared_memory().write(barrier, 8, &opaque, emulator::thread(), emulator::clock());
  MemoryBarrier made;
  made.count = made.pending = count;
  made.open = made.done = emulator::nothing_seen();
  if (!copy_engine().barriers.emplace(barrier, made).second) emulator::fail("a memory barrier is made twice");
}
inline void memory_barriers_ready() {}
inline MemoryBarrier& reach(std::uint32_t barrier) {
  emulator::shared_memory().read(barrier, 8, emulator::thread(), emulator::clock());  // its making has been seen
  return copy_engine().barrier(barrier);
}
inline void memory_barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  MemoryBarrier& b = reach(barrier);
  b.bytes += bytes;
  emulator::release(b.open);
  if (b.pending-- == 0) emulator::fail("more threads arrive at a memory barrier than it waits for");
  b.end_phase();
}
inline void memory_barrier_arrive(std::uint32_t barrier) { memory_barrier_expect(barrier, 0); }
inline void memory_barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  MemoryBarrier& b = reach(barrier);
  if (parity > 1) emulator::fail("the parity of a phase is 0 or 1, not ", parity);
  emulator::wait_until("a memory barrier", [&b, parity] {
    const auto over = [&] { return b.phases % 2 != parity; };
    if (!over() && !b.under_way.empty()) copy_engine().land_one(b);
    return over();
  });
  emulator::acquire(b.done);
}

// --- tensor copies ----------------------------------------------------------------------------------------------------

inline void copy_panel(std::uint32_t to, const TensorMap& map, int channel, int head, int row, std::uint32_t barrier) {
  if (to % 1024 != 0) emulator::fail("a panel must begin at a multiple of 1024 bytes");
  MemoryBarrier& b = reach(barrier);
  emulator::shared_memory().begin_write(to, static_cast<std::size_t>(map.box_rows) * 128, emulator::threads(),
                                        emulator::clock());
  b.under_way.push_back({to, map, channel, head, row});
}
inline void fence_stores_for_products() {
  copy_engine().stores_fenced[emulator::thread()] = emulator::clock().of(emulator::thread());
  emulator::Clock nobody = emulator::nothing_seen();
  emulator::release(nobody);  // later stores are later
}

// --- registers of a warpgroup -----------------------------------------------------------------------------------------

inline void together(const char* what) {
  emulator::collective(emulator::thread() / 128 * 128, 128, what, nullptr, [](std::span<void* const>) {});
}
template <int registers>
void give_registers() {
  static_assert(registers >= 24 && registers <= 256 && registers % 8 == 0);
  together("setmaxnreg.dec");
}
template <int registers>
void take_registers() {
  static_assert(registers >= 24 && registers <= 256 && registers % 8 == 0);
  together("setmaxnreg.inc");
}

// --- matrix products --------------------------------------------------------------------------------------------------

template <class Registers>
void settle(Registers&) {}

/// Accumulators of a warpgroup that products are under way to: their true values, while the registers hold NaN.
struct Accumulator {
  std::vector<float*> registers;  // of each thread
  std::vector<std::vector<float>> values;
  int products = 0;
};

struct Product {
  DType type;
  int columns;
  bool add, from_registers;
  std::uint64_t a, b;
  std::vector<std::array<std::uint32_t, 4>> a_registers;
  std::shared_ptr<Accumulator> d;
};

/// One chunk of 16 bytes as a warpgroup's products read it.
inline const std::uint16_t* chunk_for_product(std::uint32_t linear, std::span<const int> readers) {
  const std::uint32_t address = swizzled(linear);
  emulator::SharedMemory& memory = emulator::shared_memory();
  const std::byte* data = nullptr;
  for (const int reader : readers) data = memory.read(address, 16, reader, emulator::clock_of(reader));
  const auto& writer = memory.writer(address);
  if (writer.thread >= 0 && writer.thread < emulator::threads()) {
    const auto fenced = copy_engine().stores_fenced.find(writer.thread);
    if (fenced == copy_engine().stores_fenced.end() || fenced->second < writer.time)
      emulator::fail("a product reads what thread ", writer.thread, " stored without a fence");
  }
  return reinterpret_cast<const std::uint16_t*>(data);
}

struct Descriptor {
  explicit Descriptor(std::uint64_t bits)
      : start(static_cast<std::uint32_t>(bits & 0x3fff) << 4),
        leading(static_cast<std::uint32_t>(bits >> 16 & 0x3fff) << 4),
        stride(static_cast<std::uint32_t>(bits >> 32 & 0x3fff) << 4) {
    if (bits >> 62 != 1) emulator::fail("only the 128-byte swizzle is emulated");
    constexpr std::uint64_t unused = std::uint64_t{3} << 14 | std::uint64_t{3} << 30 | std::uint64_t{0xffff} << 46;
    if ((bits & unused) != 0) emulator::fail("bits of a matrix descriptor that must be 0 are not");
    if (start / 128 % 8 != 0) emulator::fail("a matrix does not begin with the swizzle's pattern, at ", start);
  }
  std::uint32_t start, leading, stride;
};

/// 16 columns of `rows` rows, K-major: element (i, k).
inline void read_along_rows(std::vector<float>& to, std::uint64_t bits, int first, int rows, DType type,
                            std::span<const int> readers) {
  const Descriptor d(bits);
  for (int i = first; i < first + rows; ++i)
    for (int c = 0; c < 2; ++c) {
      const auto r = static_cast<std::uint32_t>(i);
      const std::uint16_t* const chunk =
          chunk_for_product(d.start + r / 8 * d.stride + r % 8 * 128 + static_cast<std::uint32_t>(c * 16), readers);
      for (int e = 0; e < 8; ++e)
        to[static_cast<std::size_t>(i * 16 + c * 8 + e)] =
            type == DType::bf16 ? from_bf16(chunk[e]) : from_f16(chunk[e]);
    }
}
/// The same, MN-major.
inline void read_down_rows(std::vector<float>& to, std::uint64_t bits, int columns, DType type,
                           std::span<const int> readers) {
  const Descriptor d(bits);
  for (std::uint32_t k = 0; k < 16; ++k)
    for (std::uint32_t n = 0; n < static_cast<std::uint32_t>(columns); n += 8) {
      const std::uint16_t* const chunk =
          chunk_for_product(d.start + n / 64 * d.leading + n % 64 * 2 + k % 8 * 128 + k / 8 * d.stride, readers);
      for (std::uint32_t e = 0; e < 8; ++e)
        to[(n + e) * 16 + k] = type == DType::bf16 ? from_bf16(chunk[e]) : from_f16(chunk[e]);
    }
}

struct Operands {
  std::vector<float> a = std::vector<float>(64 * 16), b = std::vector<float>(256 * 16);
};

inline Operands read_operands(const Product& p, int first) {
  Operands o;
  const std::array<int, 4> warps{first, first + 32, first + 64, first + 96};  // a lane of each stands for it
  for (int w = 0; w < 4; ++w) {
    if (!p.from_registers) {
      read_along_rows(o.a, p.a, 16 * w, 16, p.type, std::span(warps).subspan(static_cast<std::size_t>(w), 1));
      continue;
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int e = 0; e < 8; ++e) {
        const int i = 16 * w + lane / 4 + (e / 2 % 2 == 1 ? 8 : 0), k = lane % 4 * 2 + e % 2 + (e >= 4 ? 8 : 0);
        const std::uint32_t pair =
            p.a_registers[static_cast<std::size_t>(32 * w + lane)][static_cast<std::size_t>(e / 2)];
        const auto bits = static_cast<std::uint16_t>(pair >> (e % 2 * 16) & 0xffff);
        o.a[static_cast<std::size_t>(i * 16 + k)] = p.type == DType::bf16 ? from_bf16(bits) : from_f16(bits);
      }
  }
  if (p.from_registers) {
    read_down_rows(o.b, p.b, p.columns, p.type, warps);
  } else {
    read_along_rows(o.b, p.b, 0, p.columns, p.type, warps);
  }
  return o;
}

/// The products of one warpgroup: under way from their start to the wait for their group.
struct Warpgroup {
  bool fenced = false;
  std::vector<Product> open;
  std::vector<std::vector<Product>> committed;
  std::map<float*, std::shared_ptr<Accumulator>> accumulators;

  static Warpgroup& mine() { return emulator::block_state<std::map<int, Warpgroup>>()[emulator::thread() / 128]; }
  void start(Product p, std::vector<float*> registers) {
    if (!fenced) emulator::fail("wgmma without a fence after registers may have changed");
    std::shared_ptr<Accumulator>& d = accumulators[registers.front()];
    if (d == nullptr) {
      d = std::make_shared<Accumulator>();
      const int each = p.columns / 2;
      for (float* r : registers) {
        d->values.emplace_back(r, r + each);
        std::fill(r, r + each, std::numeric_limits<float>::quiet_NaN());
      }
      d->registers = std::move(registers);
    }
    ++d->products;
    p.d = d;
    read_operands(p, emulator::thread() / 128 * 128);  // they must be there already
    open.push_back(std::move(p));
  }
  void finish(const Product& p) {
    const Operands o = read_operands(p, emulator::thread() / 128 * 128);
    for (int t = 0; t < 128; ++t)
      for (int x = 0; x < p.columns / 2; ++x) {
        const int i = t / 32 * 16 + t % 32 / 4 + x / 2 % 2 * 8, j = x / 4 * 8 + t % 4 * 2 + x % 2;
        float& d = p.d->values[static_cast<std::size_t>(t)][static_cast<std::size_t>(x)];
        double sum = p.add ? d : 0;
        for (int k = 0; k < 16; ++k)
          sum += static_cast<double>(o.a[static_cast<std::size_t>(i * 16 + k)]) *
                 o.b[static_cast<std::size_t>(j * 16 + k)];
        d = static_cast<float>(sum);
      }
    if (--p.d->products > 0) return;
    for (std::size_t t = 0; t < 128; ++t) std::ranges::copy(p.d->values[t], p.d->registers[t]);
    accumulators.erase(p.d->registers.front());
  }
  void wait(std::size_t left) {
    for (; committed.size() > left; committed.erase(committed.begin()))
      for (const Product& p : committed.front()) finish(p);
    fenced = false;
  }
};

inline void warpgroup_fence() {
  together("wgmma.fence");
  Warpgroup::mine().fenced = true;
}
inline void warpgroup_commit() {
  emulator::collective(emulator::thread() / 128 * 128, 128, "wgmma.commit_group", nullptr, [](std::span<void* const>) {
    Warpgroup& mine = Warpgroup::mine();
    mine.committed.push_back(std::move(mine.open));
    mine.open.clear();
  });
}
template <int left>
void warpgroup_wait() {
  emulator::collective(emulator::thread() / 128 * 128, 128, "wgmma.wait_group", nullptr,
                       [](std::span<void* const>) { Warpgroup::mine().wait(left); });
}

struct ProductLane {
  float* d;
  const std::uint32_t* a_registers;
  std::uint64_t a, b;
  bool add;
};
inline void start_product(DType type, int columns, ProductLane lane) {
  emulator::collective(emulator::thread() / 128 * 128, 128, "wgmma", &lane, [=](std::span<void* const> lanes) {
    Product p{type, columns, lane.add, lane.a_registers != nullptr, lane.a, lane.b, {}, nullptr};
    std::vector<float*> registers;
    for (void* const one : lanes) {
      const auto& l = *static_cast<const ProductLane*>(one);
      if (l.a != lane.a || l.b != lane.b || l.add != lane.add) emulator::fail("lanes of a wgmma disagree");
      registers.push_back(l.d);
      if (p.from_registers)
        p.a_registers.push_back({l.a_registers[0], l.a_registers[1], l.a_registers[2], l.a_registers[3]});
    }
    Warpgroup::mine().start(std::move(p), std::move(registers));
  });
}

template <DType type, int columns8>
void warpgroup_multiply(float (&d)[1][columns8][4], std::uint64_t a, std::uint64_t b, bool add) {
  start_product(type, columns8 * 8, {&d[0][0][0], nullptr, a, b, add});
}
template <DType type, int columns8>
void warpgroup_multiply(float (&d)[1][columns8][4], const std::uint32_t (&a)[4], std::uint64_t b) {
  start_product(type, columns8 * 8, {&d[0][0][0], a, 0, b, true});
}

}  // namespace annulus::cuda
