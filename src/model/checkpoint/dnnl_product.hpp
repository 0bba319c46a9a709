#pragma once
#include <oneapi/dnnl/dnnl.hpp>

namespace annulus::checkpoint {

/// What a product's arrays look like to oneDNN: x [rows, inputs], w [inputs, outputs], bias [1, outputs] or nothing, y [rows, outputs].
struct ProductShape {
  dnnl::memory::desc x, weights, bias, y;
};

/// The one place that knows which of oneDNN's interfaces is there: 2 has descriptors of operations, 3 has not.
inline dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const ProductShape& shape,
                                             const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, shape.x, shape.weights, shape.bias, shape.y, attributes};
#else
  return {{shape.x, shape.weights, shape.bias, shape.y}, attributes, engine};
#endif
}

}  // namespace annulus::checkpoint
