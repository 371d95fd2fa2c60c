// Products grouped by expert; see grouped_matmul.h.
#include "grouped_matmul.h"

#include <algorithm>

#include "matmul.h"

namespace mst::cpu {
namespace {

// oneDNN makes a product for each number of rows, and routing gives any number. Blocks of powers of two are few.
constexpr std::int64_t most_rows = 4096;

// Calls body(begin, end) for blocks of rows [begin, end), each a power of two long.
template <class Body>
void for_each_block(std::int64_t begin, std::int64_t end, const Body& body) {
  for (std::int64_t rows = most_rows; begin < end; rows /= 2)
    for (; begin + rows <= end; begin += rows) body(begin, begin + rows);
}

struct Range {
  std::int64_t begin, end;
};
// The rows of expert e, of R.
Range rows_of(const Tensor& offsets, std::int64_t e, std::int64_t R) {
  const Range range{offsets.as<std::int32_t>()[e], offsets.as<std::int32_t>()[e + 1]};
  MST_CHECK(0 <= range.begin && range.begin <= range.end && range.end <= R, "grouped_matmul: expert ", e, " has rows ", range.begin, " to ",
            range.end, " of ", R);
  return range;
}

}  // namespace

void grouped_matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, const Workspace& workspace,
                    bool transpose_b) {
  const auto [E, R, n, k] = check_grouped_matmul(a, b, c, offsets, transpose_b);
  const std::int64_t b_rows = transpose_b ? n : k;
  for (std::int64_t e = 0; e < E; ++e) {
    const auto [begin, end] = rows_of(offsets, e, R);
    const Tensor own = b.slice_rows(e * b_rows, (e + 1) * b_rows);
    for_each_block(begin, end, [&](std::int64_t from, std::int64_t to) {
      matmul(context, a.slice_rows(from, to), own, c.slice_rows(from, to), workspace, false, transpose_b, 1, 0);
    });
  }
}

void grouped_matmul_weights(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets,
                            const Workspace& workspace, double beta) {
  const auto [E, m, n, R] = check_grouped_matmul_weights(a, b, c, offsets, beta);
  for (std::int64_t e = 0; e < E; ++e) {
    const auto [begin, end] = rows_of(offsets, e, R);
    const Tensor own = c.slice_rows(e * m, (e + 1) * m);
    const auto multiply = [&](std::int64_t from, std::int64_t to) {
      matmul(context, a.slice_rows(from, to), b.slice_rows(from, to), own, workspace, true, false, 1, from == begin ? beta : 1);
    };
    // A bf16 gradient is rounded once, so that it takes one product.
    if (begin == end || c.dtype == Dtype::bf16)
      multiply(begin, end);
    else
      for_each_block(begin, end, multiply);
  }
}

}  // namespace mst::cpu
