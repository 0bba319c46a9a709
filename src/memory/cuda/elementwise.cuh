#pragma once
#include <cuda_runtime.h>

#include "annulus/memory/rows.hpp"
#include "memory/elements.hpp"

// What is done to rows element by element: [tokens, width] with any pitch.

namespace annulus::cuda {

template <class From, class To>
__global__ void convert_elements(Rows from, Rows to) {
  const Index width = from.heads * from.channels, count = from.tokens * width;
  for (Index at = Index{blockIdx.x} * blockDim.x + threadIdx.x; at < count; at += Index{gridDim.x} * blockDim.x) {
    const Index token = at / width, i = at % width;
    const auto* x = reinterpret_cast<const typename From::Stored*>(from.data + token * from.pitch);
    auto* y = reinterpret_cast<typename To::Stored*>(to.data + token * to.pitch);
    y[i] = To::stored(From::value(x[i]));
  }
}

template <class T>
__global__ void add_elements(Rows from, Rows to) {
  const Index width = from.heads * from.channels, count = from.tokens * width;
  for (Index at = Index{blockIdx.x} * blockDim.x + threadIdx.x; at < count; at += Index{gridDim.x} * blockDim.x) {
    const Index token = at / width, i = at % width;
    reinterpret_cast<T*>(to.data + token * to.pitch)[i] +=
        reinterpret_cast<const T*>(from.data + token * from.pitch)[i];
  }
}

constexpr int elementwise_threads = 256;

/// Enough blocks to fill any GPU; a thread takes several elements when there are more.
inline unsigned elementwise_blocks(Index elements) {
  return static_cast<unsigned>(std::clamp<Index>(ceil_div(elements, elementwise_threads), 1, 4096));
}

inline void launch_convert(const Rows& from, const Rows& to, cudaStream_t stream) {
  const Index elements = from.tokens * from.heads * from.channels;
  if (elements == 0) return;
  for_type(from.type, [&](auto source) {
    for_type(to.type, [&](auto target) {
      convert_elements<decltype(source), decltype(target)>
          <<<elementwise_blocks(elements), elementwise_threads, 0, stream>>>(from, to);
    });
  });
}

inline void launch_add(const Rows& from, const Rows& to, cudaStream_t stream) {
  const Index elements = from.tokens * from.heads * from.channels;
  if (elements == 0) return;
  const unsigned blocks = elementwise_blocks(elements);
  if (to.type == DType::f32) add_elements<float><<<blocks, elementwise_threads, 0, stream>>>(from, to);
  if (to.type == DType::f64) add_elements<double><<<blocks, elementwise_threads, 0, stream>>>(from, to);
}

}  // namespace annulus::cuda
