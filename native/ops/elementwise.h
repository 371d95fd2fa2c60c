// Element by element. Shapes must agree; row strides are free; outputs may be inputs.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// y = a + b, one dtype.
KERNEL(add, const Tensor& a, const Tensor& b, const Tensor& y);

// y += x. y has x's dtype or the compute dtype, or is bf16 with an f32 x; the sum is rounded.
KERNEL(add_to, const Tensor& x, const Tensor& y);

// y = x * factor.
KERNEL(scale, const Tensor& x, const Tensor& y, double factor);

// y = x * factor (1,) / divisor (1,), both in the compute dtype (absent divisor: 1), for factors that only the device knows.
KERNEL(scale_by, const Tensor& x, const Tensor& factor, const OptionalTensor& divisor, const Tensor& y);

// y = x, converted to y's dtype: among f32, bf16 and f64 (not on CUDA), or i32 to i32.
KERNEL(cast, const Tensor& x, const Tensor& y);

// y = value, any dtype.
KERNEL(fill, const Tensor& y, double value);

// Throw if shapes or dtypes of the operands do not match.
void check_add(const Tensor& a, const Tensor& b, const Tensor& y);
void check_add_to(const Tensor& x, const Tensor& y);
void check_scale(const Tensor& x, const Tensor& y);
void check_scale_by(const Tensor& x, const Tensor& factor, const OptionalTensor& divisor, const Tensor& y);
void check_cast(const Tensor& x, const Tensor& y);

}  // namespace mst
