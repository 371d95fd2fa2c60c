// Attention of new tokens to all before them, whose keys and values are kept: for generation. Forward only.
#pragma once

#include "../kernel.h"

namespace mst {

// out (N,H·D) = softmax(scores) · v for the queries q (N,H·D) at positions [position, position + N) of one sequence, against k and v
// (S,G·D) of which rows [0, position + N) are filled. Query head h reads key/value head h / (H/G). Query p sees key s where s <= p, and
// s > p - window where window > 0. score = scale * q·k, then softcap > 0: softcap * tanh(score / softcap). D <= 512.
KERNEL(cached_attention, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, std::int64_t position, std::int64_t D,
       double scale, std::int64_t window, double softcap);

}  // namespace mst
