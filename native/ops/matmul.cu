// The matrix product on CUDA: cuBLASLt when available, otherwise our kernels; see matmul.h. Row-major matrices are column-major ones
// with rows and columns exchanged: c = op(a) op(b) is cᵀ = op(b)ᵀ op(a)ᵀ, so that b is cuBLASLt's A, and no data is transposed.
#include "matmul.h"

#include <array>
#include <limits>
#include <map>
#include <string>
#include <tuple>

#include "../cuda/context.h"
#include "../cuda/cublaslt.h"
#include "../cuda/own_matmul.h"
#include "../cuda/tuning.h"
#include "elementwise.h"

namespace mst::cuda {
namespace {

// Values of cuBLASLt's enumerations.
constexpr int real_f32 = 0, real_bf16 = 14, compute_f32 = 68, op_n = 0, op_t = 1;
constexpr int desc_transpose_a = 3, desc_transpose_b = 4;
constexpr int preference_workspace_bytes = 1, preference_reduction_mask = 3, preference_alignment_a = 5;
constexpr int reduce_none_or_compute_type = 2;  // partial sums are never rounded to bf16

void check(int status, const char* call) {
  MST_CHECK(status == 0, "matmul: ", call, ": ", cublaslt().status_text(status));
}

int data_type(Dtype dtype) {
  MST_CHECK(dtype == Dtype::f32 || dtype == Dtype::bf16, "matmul: CUDA computes in float32 and bfloat16, got ", name_of(dtype));
  return dtype == Dtype::bf16 ? real_bf16 : real_f32;
}

// The largest power of two up to 256 that divides the address.
unsigned alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  unsigned alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

struct Key {
  int device;
  std::int64_t m, n, k, a_stride, b_stride, c_stride;
  bool transpose_a, transpose_b, has_beta;
  Dtype dtype, c_dtype;
  unsigned a_alignment, b_alignment, c_alignment;
  std::size_t workspace_bytes;

  auto tie() const {
    return std::tie(device, m, n, k, a_stride, b_stride, c_stride, transpose_a, transpose_b, has_beta, dtype, c_dtype, a_alignment,
                    b_alignment, c_alignment, workspace_bytes);
  }
  friend bool operator<(const Key& x, const Key& y) {
    return x.tie() < y.tie();
  }

  double operations() const {
    return 2.0 * double(m) * double(n) * double(k);
  }
  std::string text() const {
    return message_of(m, ' ', n, ' ', k, ' ', a_stride, ' ', b_stride, ' ', c_stride, ' ', transpose_a, transpose_b, has_beta, ' ',
                      name_of(dtype), ' ', name_of(c_dtype), ' ', a_alignment, ' ', b_alignment, ' ', c_alignment, ' ', workspace_bytes);
  }
};

// What a product runs on.
struct Operands {
  const void *a, *b;
  void* c;
  const Workspace& workspace;
};

// Descriptors and the algorithm of one kind of product.
struct Plan {
  void *desc, *a, *b, *c;
  CublasLtAlgorithm algorithm;
};

void* handle_of(int device) {
  thread_local std::map<int, void*> handles;
  const auto [place, is_new] = handles.try_emplace(device, nullptr);
  if (is_new) check(cublaslt().create(&place->second), "cublasLtCreate");
  return place->second;
}

constexpr int max_candidates = 8;
constexpr double least_tuned = 2e9;  // operations from which a product is worth timing

int run(Context& context, const Plan& plan, void* handle, const Operands& on, float alpha, float beta, const CublasLtAlgorithm& algorithm) {
  return cublaslt().matmul(handle, plan.desc, &alpha, on.b, plan.b, on.a, plan.a, &beta, on.c, plan.c, on.c, plan.c, &algorithm,
                           on.workspace.data, on.workspace.bytes, context.stream());
}

// Times every candidate on the operands themselves. Tuning must leave c unchanged when beta is 1: with the smallest normal alpha the added
// term vanishes in rounding, but for elements of c below 1e-30.
CublasLtAlgorithm fastest(Context& context, const Plan& plan, const Key& key, void* handle, const Operands& operands,
                          const CublasLtHeuristic* candidates, int num_candidates) {
  constexpr int rounds = 3;
  const float alpha = key.has_beta ? std::numeric_limits<float>::min() : 1.0f, beta = key.has_beta ? 1.0f : 0.0f;
  cudaEvent_t begin = nullptr, end = nullptr;
  CUDA_CHECK(cudaEventCreate(&begin));
  CUDA_CHECK(cudaEventCreate(&end));
  int best = 0;
  float best_time = std::numeric_limits<float>::infinity();
  for (int i = 0; i < num_candidates; ++i) {
    int status = run(context, plan, handle, operands, alpha, beta, candidates[i].algorithm);  // not timed: the first run loads the kernel
    CUDA_CHECK(cudaEventRecord(begin, context.stream()));
    for (int round = 0; round < rounds; ++round) status |= run(context, plan, handle, operands, alpha, beta, candidates[i].algorithm);
    CUDA_CHECK(cudaEventRecord(end, context.stream()));
    CUDA_CHECK(cudaEventSynchronize(end));
    float time = 0;
    CUDA_CHECK(cudaEventElapsedTime(&time, begin, end));
    if (status != 0 || time >= best_time) continue;
    best_time = time;
    best = i;
  }
  CUDA_CHECK(cudaEventDestroy(begin));
  CUDA_CHECK(cudaEventDestroy(end));
  return candidates[best].algorithm;
}

Plan make_plan(Context& context, const Key& key, void* handle, const Operands& operands) {
  const CublasLt& lt = cublaslt();
  Plan plan{};
  check(lt.matmul_desc_create(&plan.desc, compute_f32, real_f32), "cublasLtMatmulDescCreate");
  const int transpose_first = key.transpose_b ? op_t : op_n, transpose_second = key.transpose_a ? op_t : op_n;
  check(lt.matmul_desc_set(plan.desc, desc_transpose_a, &transpose_first, sizeof(int)), "cublasLtMatmulDescSetAttribute");
  check(lt.matmul_desc_set(plan.desc, desc_transpose_b, &transpose_second, sizeof(int)), "cublasLtMatmulDescSetAttribute");
  const int type = data_type(key.dtype);
  const auto layout = [&](void** out, int of_type, bool transposed, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
    if (transposed) std::swap(rows, cols);  // as stored
    check(lt.layout_create(out, of_type, static_cast<std::uint64_t>(cols), static_cast<std::uint64_t>(rows), stride),
          "cublasLtMatrixLayoutCreate");
  };
  layout(&plan.a, type, key.transpose_a, key.m, key.k, key.a_stride);
  layout(&plan.b, type, key.transpose_b, key.k, key.n, key.b_stride);
  layout(&plan.c, data_type(key.c_dtype), false, key.m, key.n, key.c_stride);

  void* preference = nullptr;
  check(lt.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  const std::uint64_t workspace_bytes = key.workspace_bytes;
  check(lt.preference_set(preference, preference_workspace_bytes, &workspace_bytes, sizeof workspace_bytes),
        "cublasLtMatmulPreferenceSetAttribute");
  const int mask = reduce_none_or_compute_type;
  check(lt.preference_set(preference, preference_reduction_mask, &mask, sizeof mask), "cublasLtMatmulPreferenceSetAttribute");
  const unsigned alignments[] = {key.b_alignment, key.a_alignment, key.c_alignment, key.c_alignment};
  for (int i = 0; i < 4; ++i)
    check(lt.preference_set(preference, preference_alignment_a + i, &alignments[i], sizeof(unsigned)),
          "cublasLtMatmulPreferenceSetAttribute");
  std::array<CublasLtHeuristic, max_candidates> found{};
  int num_found = 0;
  const int status = lt.heuristic(handle, plan.desc, plan.b, plan.a, plan.c, plan.c, preference, max_candidates, found.data(), &num_found);
  lt.preference_destroy(preference);
  MST_CHECK(status == 0 && num_found > 0, "matmul: cuBLASLt has no algorithm for m ", key.m, ", n ", key.n, ", k ", key.k, " in ",
            name_of(key.dtype), ": ", lt.status_text(status));
  plan.algorithm = found[0].algorithm;
  if (!tunes() || key.operations() < least_tuned || num_found < 2) return plan;
  const std::string text = key.text();
  if (const auto known = find_tuned(text)) {
    plan.algorithm = *known;
    return plan;
  }
  plan.algorithm = fastest(context, plan, key, handle, operands, found.data(), num_found);
  keep_tuned(text, plan.algorithm);
  return plan;
}

void destroy(const Plan& plan) {
  const CublasLt& lt = cublaslt();
  lt.matmul_desc_destroy(plan.desc);
  for (void* layout : {plan.a, plan.b, plan.c}) lt.layout_destroy(layout);
}

const Plan& find_plan(Context& context, const Key& key, void* handle, const Operands& operands) {
  constexpr std::size_t max_plans = 1024;
  thread_local std::map<Key, Plan> plans;
  const auto found = plans.find(key);
  if (found != plans.end()) return found->second;
  if (plans.size() >= max_plans) {
    for (const auto& [old, plan] : plans) destroy(plan);
    plans.clear();
  }
  return plans.emplace(key, make_plan(context, key, handle, operands)).first->second;
}

}  // namespace

void matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, const Workspace& workspace, bool transpose_a,
            bool transpose_b, double alpha, double beta) {
  const std::int64_t m = transpose_a ? a.cols() : a.rows(), k = transpose_a ? a.rows() : a.cols();
  const std::int64_t n = transpose_b ? b.rows() : b.cols(), b_k = transpose_b ? b.cols() : b.rows();
  MST_CHECK(k == b_k, "matmul: inner sizes ", k, " of a ", a, " and ", b_k, " of b ", b, " differ");
  MST_CHECK(c.rows() == m && c.cols() == n, "matmul: c ", c, " should be (", m, ",", n, ")");
  MST_CHECK(a.dtype == b.dtype, "matmul: a is ", name_of(a.dtype), ", b is ", name_of(b.dtype));
  MST_CHECK(c.dtype == a.dtype || (a.dtype == Dtype::bf16 && c.dtype == Dtype::f32), "matmul: c ", c, " cannot take a product of ", a);
  if (m == 0 || n == 0) return;
  if (k == 0) return beta == 0 ? fill(context, c, 0) : scale(context, c, c, beta);
  if (uses_own_products()) return own_matmul(context, a, b, c, transpose_a, transpose_b, alpha, beta);
  // A matrix of one row may have any stride; cuBLASLt wants at least the row's length.
  const auto stride_of = [](const Tensor& tensor) { return tensor.rows() == 1 ? tensor.cols() : tensor.row_stride; };
  const Key key{context.device().index,
                m,
                n,
                k,
                stride_of(a),
                stride_of(b),
                stride_of(c),
                transpose_a,
                transpose_b,
                beta != 0,
                a.dtype,
                c.dtype,
                alignment_of(a.data),
                alignment_of(b.data),
                alignment_of(c.data),
                workspace.bytes};
  void* const handle = handle_of(context.device().index);
  const Operands operands{a.data, b.data, c.data, workspace};
  const Plan& plan = find_plan(context, key, handle, operands);
  check(run(context, plan, handle, operands, static_cast<float>(alpha), static_cast<float>(beta), plan.algorithm), "cublasLtMatmul");
}

}  // namespace mst::cuda
