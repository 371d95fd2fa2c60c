// The products of an MLP and a head: cuBLASLt's, each kind's algorithm chosen by timing, and ours in turn.
#include "ops/own_matmul.h"
#include "support.h"

namespace mst::bench {
namespace {

enum class Pass { forward, dgrad, wgrad, wgrad_added };
constexpr const char* names[] = {"forward", "dgrad", "wgrad", "wgrad, added"};

// One pass of y (N,O) = x (N,I) · wᵀ, w (O,I).
void product(const std::string& layer, Pass pass, std::int64_t N, std::int64_t I, std::int64_t O) {
  const bool is_wgrad = pass == Pass::wgrad || pass == Pass::wgrad_added;
  Buffer a(Dtype::bf16, N, pass == Pass::forward ? I : O);
  Buffer b(Dtype::bf16, is_wgrad ? N : O, I);
  Buffer c(is_wgrad ? Dtype::f32 : Dtype::bf16, is_wgrad ? O : N, pass == Pass::forward ? O : I);
  a.random(), b.random(0.02), c.random();
  const bool transpose_a = is_wgrad, transpose_b = pass == Pass::forward;
  const double beta = pass == Pass::wgrad_added ? 1 : 0;
  const auto run = [&] { matmul(context(), a, b, c, product_workspace(), transpose_a, transpose_b, 1, beta); };
  const auto times =
      time_in_turn({{run, nullptr, true}, {run}, {[&] { cuda::own_matmul(context(), a, b, c, transpose_a, transpose_b, 1, beta); }}});
  const double operations = 2.0 * double(N) * double(I) * double(O), hot = median(times[1]);
  report("products", message_of(layer, ", ", names[int(pass)], ", N ", N),
         {{"milliseconds", hot},
          {"coldMilliseconds", median(times[0])},
          {"operations", operations},
          {"teraflops", operations / hot * 1e-9},
          {"ownMilliseconds", median(times[2])},
          {"builtinRatio", median_ratio(times[1], times[2])}});
}

}  // namespace

void products() {
  for (const std::int64_t N : {4096, 8192})
    for (const Pass pass : {Pass::forward, Pass::dgrad, Pass::wgrad, Pass::wgrad_added}) {
      product("gate and up", pass, N, C, 2 * F);
      product("down", pass, N, F, C);
      product("head", pass, N, C, V);
    }
}

}  // namespace mst::bench
