#include "memory/cuda/device.hpp"

#include <algorithm>
#include <bit>
#include <future>
#include <utility>

#include "annulus/base/error.hpp"
#include "memory/cuda/elementwise.cuh"

namespace annulus {
namespace cuda {
namespace {

constexpr Index granule = 512, small = Index{1} << 20, slab_bytes = 8 * small;

std::byte* plain_allocate(Index bytes) {
  void* memory = nullptr;
  const cudaError_t code = cudaMalloc(&memory, static_cast<std::size_t>(bytes));
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is told by the nullptr, and must not be found again later
    return nullptr;
  }
  check(code, "cudaMalloc");
  return static_cast<std::byte*>(memory);
}

void plain_release(std::byte* memory) noexcept { cudaFree(memory); }

constexpr CudaMemory plain_memory{plain_allocate, plain_release};

void check_same_shape(const Rows& from, const Rows& to) {
  require(same_shape(from, to), "rows must have the same shape: ", from.tokens, " x ", from.heads, " x ", from.channels,
          " and ", to.tokens, " x ", to.heads, " x ", to.channels);
}

class PinnedMemory final : public Device {
 public:
  Place place() const override { return Place::cpu; }
  std::string name() const override { return "pinned host memory"; }
  std::byte* allocate(Index bytes) override {
    void* memory = nullptr;
    check(cudaHostAlloc(&memory, static_cast<std::size_t>(std::max<Index>(bytes, 1)), cudaHostAllocPortable),
          "cudaHostAlloc");
    return static_cast<std::byte*>(memory);
  }
  void release(std::byte* memory, Index) noexcept override { cudaFreeHost(memory); }
  void zero(std::byte* memory, Index bytes) override { cpu_.zero(memory, bytes); }
  void copy(std::byte* to, const std::byte* from, Index bytes) override { cpu_.copy(to, from, bytes); }

 private:
  CpuDevice cpu_;
};

}  // namespace

void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  const Failure failure = code == cudaErrorMemoryAllocation ? Failure::fit : Failure::runtime;
  throw Error(failure, sentence(what, " failed: ", cudaGetErrorString(code)));
}

CudaDevice::CudaDevice(int gpu, const CudaMemory& memory) : gpu_(gpu), memory_(memory) {
  if (memory_.allocate == nullptr) memory_ = plain_memory;
  const std::string reason = cuda_refusal();
  require(reason.empty(), "no GPU can be used: ", reason);
  const int gpus = static_cast<int>(cuda_gpus().size());
  require(gpu >= 0 && gpu < gpus, "there is no GPU ", gpu, ": this process sees ", gpus);
  use();
  check(cudaGetDeviceProperties(&properties_, gpu), "cudaGetDeviceProperties");
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  check(cudaEventCreateWithFlags(&paced_, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreateWithFlags");
}

CudaDevice::~CudaDevice() {
  cudaSetDevice(gpu_);
  cudaStreamSynchronize(stream_);
  free_kept();
  for (std::byte* slab : slabs_) give_back(slab);
  cudaEventDestroy(paced_);
  cudaStreamDestroy(stream_);
}

void CudaDevice::use() const { check(cudaSetDevice(gpu_), "cudaSetDevice"); }

std::string CudaDevice::name() const { return sentence("cuda:", gpu_, " ", properties_.name); }

// Few sizes, so that what was freed fits what is asked for next: an eighth of the size is lost at most.
Index CudaDevice::rounded(Index bytes) {
  const auto floor = static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(std::max<Index>(bytes, 1))));
  const Index step = std::max(granule, floor / 8);
  return ceil_div(std::max<Index>(bytes, 1), step) * step;
}

// Memory of a library's own comes in large pieces only.
bool CudaDevice::is_cut(Index bytes) const { return bytes < small && memory_.allocate != plain_memory.allocate; }

std::byte* CudaDevice::take(Index bytes) {
  std::byte* const memory = memory_.allocate(bytes);
  if (memory != nullptr) pieces_[memory] = bytes;
  return memory;
}

// What is cut is kept for its size and never joined again; the end of a slab that is too short is lost.
std::byte* CudaDevice::cut(Index bytes) {
  if (bytes > slab_left_) {
    std::byte* const slab = take(slab_bytes);
    if (slab == nullptr) return nullptr;
    slabs_.push_back(slab);
    slab_ = slab;
    slab_left_ = slab_bytes;
  }
  slab_left_ -= bytes;
  return std::exchange(slab_, slab_ + bytes);
}

std::byte* CudaDevice::allocate(Index bytes) {
  use();
  const Index wanted = rounded(bytes);
  if (const auto found = kept_.find(wanted); found != kept_.end()) {
    std::byte* memory = found->second;
    kept_.erase(found);
    return memory;
  }
  const auto get = [&] { return is_cut(wanted) ? cut(wanted) : take(wanted); };
  std::byte* memory = get();
  if (memory == nullptr) {  // what is kept may make room
    finish();
    free_kept();
    memory = get();
  }
  require<Failure::fit>(memory != nullptr, "GPU ", gpu_, " has not enough free memory for ", bytes, " bytes");
  return memory;
}

void CudaDevice::release(std::byte* memory, Index bytes) noexcept {
  try {
    kept_.emplace(rounded(bytes), memory);
  } catch (...) {  // no memory for the list: the piece stays taken until the process ends
  }
}

void CudaDevice::give_back(std::byte* memory) noexcept {
  pieces_.erase(memory);
  if (told_) told_(memory);
  memory_.release(memory);
}

void CudaDevice::free_kept() noexcept {
  for (auto piece = kept_.begin(); piece != kept_.end();) {
    const auto [bytes, memory] = *piece;
    if (is_cut(bytes)) {
      ++piece;
      continue;
    }
    give_back(memory);
    piece = kept_.erase(piece);
  }
}

CudaDevice::Allocation CudaDevice::allocation_of(const std::byte* address) const {
  auto after = pieces_.upper_bound(const_cast<std::byte*>(address));
  if (after == pieces_.begin()) return {};
  --after;
  return address < after->first + after->second ? Allocation{after->first, after->second} : Allocation{};
}

void CudaDevice::zero(std::byte* memory, Index bytes) {
  use();
  if (bytes > 0) check(cudaMemsetAsync(memory, 0, static_cast<std::size_t>(bytes), stream_), "cudaMemsetAsync");
}

void CudaDevice::copy(std::byte* to, const std::byte* from, Index bytes) {
  use();
  if (bytes > 0)
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream_), "cudaMemcpyAsync");
  finish();
}

void CudaDevice::convert(const Rows& from, const Rows& to) {
  check_same_shape(from, to);
  if (from.type == to.type) return copy_rows(from, to);
  require(from.place == Place::cuda && to.place == Place::cuda, "rows are converted where they live, on the GPU");
  use();
  launch_convert(from, to, stream_);
  check(cudaGetLastError(), "converting rows");
}

void CudaDevice::copy_rows(const Rows& from, const Rows& to) {
  check_same_shape(from, to);
  require(from.type == to.type, "rows must have the same type to be copied");
  if (from.bytes() == 0) return;
  use();
  if (from.dense() && to.dense())
    check(cudaMemcpyAsync(to.data, from.data, static_cast<std::size_t>(from.bytes()), cudaMemcpyDefault, stream_),
          "cudaMemcpyAsync");
  else
    check(cudaMemcpy2DAsync(to.data, static_cast<std::size_t>(to.pitch), from.data,
                            static_cast<std::size_t>(from.pitch), static_cast<std::size_t>(from.row_bytes()),
                            static_cast<std::size_t>(from.tokens), cudaMemcpyDefault, stream_),
          "cudaMemcpy2DAsync");
  if (from.place != Place::cuda || to.place != Place::cuda) finish();
}

void CudaDevice::clear(const Rows& rows) {
  use();
  if (rows.bytes() == 0) return;
  if (rows.dense()) return zero(rows.data, rows.bytes());
  check(cudaMemset2DAsync(rows.data, static_cast<std::size_t>(rows.pitch), 0,
                          static_cast<std::size_t>(rows.row_bytes()), static_cast<std::size_t>(rows.tokens), stream_),
        "cudaMemset2DAsync");
}

void CudaDevice::add(const Rows& from, const Rows& to) {
  check_same_shape(from, to);
  require(from.type == to.type && (to.type == DType::f32 || to.type == DType::f64),
          "only f32 and f64 rows can be added");
  use();
  launch_add(from, to, stream_);
  check(cudaGetLastError(), "adding rows");
}

void CudaDevice::finish() {
  use();
  check(cudaStreamSynchronize(stream_), "the work on the GPU");
}

void CudaDevice::pace() {
  use();
  check(cudaEventSynchronize(paced_), "the work on the GPU");  // returns at once where nothing was recorded
  check(cudaEventRecord(paced_, stream_), "cudaEventRecord");
}

CudaDevice& as_cuda(Device& device) {
  auto* cuda = dynamic_cast<CudaDevice*>(&device);
  require(cuda != nullptr, "this needs a GPU, but the device is ", device.name());
  return *cuda;
}

}  // namespace cuda

std::string cuda_refusal() {
  int gpus = 0;
  const cudaError_t code = cudaGetDeviceCount(&gpus);
  cudaGetLastError();
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) return "no CUDA driver is installed";
  if (code == cudaErrorInsufficientDriver) return sentence("the CUDA driver is too old: ", cuda_versions());
  if (code == cudaErrorNoDevice || (code == cudaSuccess && gpus == 0)) return "no CUDA device";
  return code == cudaSuccess ? "" : cudaGetErrorString(code);
}

std::vector<CudaGpu> cuda_gpus() {
  std::vector<CudaGpu> gpus;
  if (!cuda_refusal().empty()) return gpus;
  int count = 0;
  cuda::check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  for (int gpu = 0; gpu < count; ++gpu) {
    cudaDeviceProp properties{};
    cuda::check(cudaGetDeviceProperties(&properties, gpu), "cudaGetDeviceProperties");
    gpus.push_back({properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                    static_cast<Index>(properties.totalGlobalMem)});
  }
  return gpus;
}

// On a thread of its own: a thread's device cannot be put back as it was, since to name one is to use it.
Index cuda_free_bytes(int gpu) {
  return std::async(std::launch::async,
                    [gpu] {
                      cuda::check(cudaSetDevice(gpu), "cudaSetDevice");
                      std::size_t free_bytes = 0, bytes = 0;
                      cuda::check(cudaMemGetInfo(&free_bytes, &bytes), "cudaMemGetInfo");
                      return static_cast<Index>(free_bytes);
                    })
      .get();
}

std::string cuda_versions() {
  const auto text = [](int version) { return sentence(version / 1000, ".", version % 1000 / 10); };
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return sentence(driver == 0 ? "no driver" : "driver " + text(driver), ", runtime ", text(runtime));
}

std::unique_ptr<Device> make_cuda_device(int gpu, const CudaMemory& memory) {
  return std::make_unique<cuda::CudaDevice>(gpu, memory);
}

std::unique_ptr<Device> make_pinned_memory() { return std::make_unique<cuda::PinnedMemory>(); }

}  // namespace annulus
