// The package's own attention kernels, for every device, dtype and shape; contracts as in ops/attention.h.
#pragma once

#include "../context.h"

namespace mst::cuda {

void own_attention_forward(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& document_start,
                           const Tensor& out, const Tensor& lse, std::int64_t T, std::int64_t D, double scale, std::int64_t window,
                           double softcap);
void own_attention_backward(Context& context, const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                            const OptionalTensor& document_start, const Tensor& out, const Tensor& lse, const Tensor& dq, const Tensor& dk,
                            const Tensor& dv, const Workspace& workspace, std::int64_t T, std::int64_t D, double scale, std::int64_t window,
                            double softcap);

}  // namespace mst::cuda
