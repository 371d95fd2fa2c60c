// See cublaslt_products.h.
#include "cublaslt_products.h"

#include <limits>
#include <utility>

namespace mst::cuda {
namespace {

// Values of cuBLASLt's enumerations.
constexpr int real_f32 = 0, real_bf16 = 14, compute_f32 = 68, op_n = 0, op_t = 1;
constexpr int desc_transpose_a = 3, desc_transpose_b = 4;
constexpr int preference_workspace_bytes = 1, preference_reduction_mask = 3, preference_alignment_a = 5;
constexpr int reduce_none_or_compute_type = 2;  // partial sums are never rounded to bf16

constexpr std::size_t max_plans = 1024;
constexpr int max_candidates = 8;
constexpr double least_tuned = 2e9;  // products of fewer operations are not timed

int data_type(Dtype dtype) {
  MST_CHECK(dtype == Dtype::f32 || dtype == Dtype::bf16, "matmul: on CUDA the dtype must be float32 or bfloat16, got ", name_of(dtype));
  return dtype == Dtype::bf16 ? real_bf16 : real_f32;
}

double operations_of(const ProductKind& kind) {
  return 2.0 * double(kind.m) * double(kind.n) * double(kind.k);
}

// The key of a kind in the file of timed choices.
std::string text_of(const ProductKind& kind) {
  return message_of(kind.m, ' ', kind.n, ' ', kind.k, ' ', kind.a_stride, ' ', kind.b_stride, ' ', kind.c_stride, ' ', kind.transpose_a,
                    kind.transpose_b, kind.has_beta, ' ', name_of(kind.dtype), ' ', name_of(kind.c_dtype), ' ', kind.a_alignment, ' ',
                    kind.b_alignment, ' ', kind.c_alignment, ' ', kind.workspace_bytes);
}

}  // namespace

CublasLtProducts::CublasLtProducts(const Stream& stream, int device, std::string tuning_directory)
    : stream_(stream), device_(device), tuning_directory_(std::move(tuning_directory)) {}

CublasLtProducts::~CublasLtProducts() {
  for (const auto& [kind, plan] : plans_) destroy(plan);
  if (handle_) library_->destroy(handle_);
}

void CublasLtProducts::multiply(const ProductKind& kind, const ProductOperands& operands, float alpha, float beta) {
  load();
  const Plan& plan = find_plan(kind, operands);
  check(run(plan, plan.algorithm, kind, operands, alpha, beta), "cublasLtMatmul");
}

void CublasLtProducts::load() {
  if (handle_) return;
  library_ = &cublaslt();
  check(library_->create(&handle_), "cublasLtCreate");
  tuning_.emplace(device_, tuning_directory_);
}

void CublasLtProducts::check(int status, const char* call) const {
  MST_CHECK(status == 0, "matmul: ", call, ": ", library_->status_text(status));
}

int CublasLtProducts::run(const Plan& plan, const CublasLtAlgorithm& algorithm, const ProductKind& kind, const ProductOperands& on,
                          float alpha, float beta) const {
  return library_->matmul(handle_, plan.desc, &alpha, on.b, plan.b, on.a, plan.a, &beta, on.c, plan.c, on.c, plan.c, &algorithm,
                          on.workspace, kind.workspace_bytes, stream_.get());
}

// Times every candidate on the operands themselves. Tuning must leave c unchanged when beta is 1: with the smallest normal alpha the added
// term vanishes in rounding, except in elements of c below 1e-30.
CublasLtAlgorithm CublasLtProducts::fastest(const Plan& plan, const ProductKind& kind, const ProductOperands& operands,
                                            const std::vector<CublasLtHeuristic>& candidates) const {
  constexpr int rounds = 3;
  const float alpha = kind.has_beta ? std::numeric_limits<float>::min() : 1.0f, beta = kind.has_beta ? 1.0f : 0.0f;
  Event begin, end;
  const CublasLtHeuristic* best = &candidates[0];
  float best_time = std::numeric_limits<float>::infinity();
  for (const CublasLtHeuristic& candidate : candidates) {
    int status = run(plan, candidate.algorithm, kind, operands, alpha, beta);  // not timed: the first run loads the kernel
    begin.record(stream_.get());
    for (int round = 0; round < rounds; ++round) status |= run(plan, candidate.algorithm, kind, operands, alpha, beta);
    end.record(stream_.get());
    end.synchronize();
    const float time = end.milliseconds_since(begin);
    if (status != 0 || time >= best_time) continue;
    best_time = time;
    best = &candidate;
  }
  return best->algorithm;
}

// The algorithms that the library proposes, the best first.
std::vector<CublasLtHeuristic> CublasLtProducts::candidates_for(const Plan& plan, const ProductKind& kind) const {
  const CublasLt& lt = *library_;
  void* preference = nullptr;
  check(lt.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  const auto set = [&](int attribute, const auto& value) {
    check(lt.preference_set(preference, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
  };
  set(preference_workspace_bytes, std::uint64_t{kind.workspace_bytes});
  set(preference_reduction_mask, reduce_none_or_compute_type);
  int attribute = preference_alignment_a;
  for (const unsigned alignment : {kind.b_alignment, kind.a_alignment, kind.c_alignment, kind.c_alignment}) set(attribute++, alignment);
  std::vector<CublasLtHeuristic> found(max_candidates);
  int num_found = 0;
  const int status = lt.heuristic(handle_, plan.desc, plan.b, plan.a, plan.c, plan.c, preference, max_candidates, found.data(), &num_found);
  lt.preference_destroy(preference);
  MST_CHECK(status == 0 && num_found > 0, "matmul: cuBLASLt has no algorithm for m ", kind.m, ", n ", kind.n, ", k ", kind.k, " in ",
            name_of(kind.dtype), ": ", lt.status_text(status));
  found.resize(static_cast<std::size_t>(num_found));
  return found;
}

CublasLtAlgorithm CublasLtProducts::choose_algorithm(const Plan& plan, const ProductKind& kind, const ProductOperands& operands) {
  const std::vector<CublasLtHeuristic> candidates = candidates_for(plan, kind);
  if (!tuning_->is_on() || operations_of(kind) < least_tuned || candidates.size() < 2) return candidates[0].algorithm;
  const std::string text = text_of(kind);
  if (const auto known = tuning_->find(text)) return *known;
  const CublasLtAlgorithm algorithm = fastest(plan, kind, operands, candidates);
  tuning_->keep(text, algorithm);
  return algorithm;
}

// Makes a plan without its algorithm.
CublasLtProducts::Plan CublasLtProducts::make_plan(const ProductKind& kind) const {
  const CublasLt& lt = *library_;
  const int type = data_type(kind.dtype), c_type = data_type(kind.c_dtype);
  Plan plan;
  check(lt.matmul_desc_create(&plan.desc, compute_f32, real_f32), "cublasLtMatmulDescCreate");
  const int transpose_first = kind.transpose_b ? op_t : op_n, transpose_second = kind.transpose_a ? op_t : op_n;
  check(lt.matmul_desc_set(plan.desc, desc_transpose_a, &transpose_first, sizeof(int)), "cublasLtMatmulDescSetAttribute");
  check(lt.matmul_desc_set(plan.desc, desc_transpose_b, &transpose_second, sizeof(int)), "cublasLtMatmulDescSetAttribute");
  const auto layout = [&](void** out, int of_type, bool transposed, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
    if (transposed) std::swap(rows, cols);  // as stored
    check(lt.layout_create(out, of_type, static_cast<std::uint64_t>(cols), static_cast<std::uint64_t>(rows), stride),
          "cublasLtMatrixLayoutCreate");
  };
  layout(&plan.a, type, kind.transpose_a, kind.m, kind.k, kind.a_stride);
  layout(&plan.b, type, kind.transpose_b, kind.k, kind.n, kind.b_stride);
  layout(&plan.c, c_type, false, kind.m, kind.n, kind.c_stride);
  return plan;
}

void CublasLtProducts::destroy(const Plan& plan) const {
  library_->matmul_desc_destroy(plan.desc);
  for (void* layout : {plan.a, plan.b, plan.c}) library_->layout_destroy(layout);
}

const CublasLtProducts::Plan& CublasLtProducts::find_plan(const ProductKind& kind, const ProductOperands& operands) {
  const auto found = plans_.find(kind);
  if (found != plans_.end()) return found->second;
  if (plans_.size() >= max_plans) {
    for (const auto& [old, plan] : plans_) destroy(plan);
    plans_.clear();
  }
  Plan plan = make_plan(kind);
  try {
    plan.algorithm = choose_algorithm(plan, kind, operands);
  } catch (...) {
    destroy(plan);
    throw;
  }
  return plans_.emplace(kind, plan).first->second;
}

}  // namespace mst::cuda
