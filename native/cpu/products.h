// oneDNN's matrix products. Each kind is made once, since that takes 0.1 ms or more.
#pragma once

#include <cstdint>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string>
#include <tuple>

#include "../runtime/dtype.h"

namespace mst::cpu {

// A kind of product: its sizes, and where the elements of its operands are. Element (i, j) of op(a) is a[i * row + j * col].
struct Strides {
  std::int64_t row, col;
};
struct Product {
  std::int64_t m, n, k;
  Strides a, b;
  std::int64_t c_stride;
  Dtype dtype, c_dtype;
  float alpha, beta;

  auto key() const {
    return std::tie(m, n, k, a.row, a.col, b.row, b.col, c_stride, dtype, c_dtype, alpha, beta);
  }
  friend bool operator<(const Product& x, const Product& y) {
    return x.key() < y.key();
  }
};

struct Primitive {
  dnnl::memory::desc a, b, c, scratchpad;
  dnnl::matmul matmul;
  std::string implementation;
};

class Products {
 public:
  // Null if oneDNN has no such product on this CPU. Valid until the next call for another product.
  const Primitive* find(const Product& product);
  void execute(const Primitive& primitive, void* a, void* b, void* c, void* scratchpad);

 private:
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::map<Product, std::optional<Primitive>> primitives_;
};

}  // namespace mst::cpu
