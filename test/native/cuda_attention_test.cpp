// Attention on CUDA, emulated or on a GPU, against the CPU's: ragged lengths, grouped heads, windows, documents, both orders of threads.
#include "ops/all.h"
#include "ops/attention_mma.h"
#include "support.h"

namespace mst::test {
namespace {

TEST(CudaOps, CachedAttention) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
    for (const auto& [N, position, H, G, D] :
         {std::array<std::int64_t, 5>{1, 0, 2, 1, 16}, {3, 40, 4, 2, 64}, {2, 7, 3, 3, 80}, {1, 300, 2, 1, 256}})
      for (const auto& [window, softcap] : {std::pair<std::int64_t, double>{0, 0}, {9, 2.0}}) {
        const HostTensor q = HostTensor(dtype, N, H * D).randomize(1), k = HostTensor(dtype, position + N, G * D).randomize(2);
        const HostTensor v = HostTensor(dtype, position + N, G * D).randomize(3);
        HostTensor expected(dtype, N, H * D), found(dtype, N, H * D);
        const AttentionOptions options{position + N, D, 0.2, window, softcap};
        cpu::cached_attention(cpu_context(), {q.cpu(), k.cpu(), v.cpu()}, expected.cpu(), position, options);
        cuda::cached_attention(cuda_context(), {q.cuda(), k.cuda(), v.cuda()}, found.cuda(), position, options);
        EXPECT_CLOSE(found, expected, dtype == Dtype::f32 ? 2e-6 : 4e-3);
      }
}

// Shared memory of a block on the GPUs that have the least of it, and on an H200.
constexpr std::size_t little_shared_memory = 99 << 10, much_shared_memory = 227 << 10;

TEST(CudaOps, Attention) {
  struct Shape {
    std::int64_t B, T, H, G, D, window;
    double softcap;
    bool documents;
    int gap = 3;  // between q's rows: with 8, bf16 runs on tensor cores where the head size has kernels for them
  };
  const Shape shapes[] = {{1, 1, 2, 1, 64, 0, 0, false, 8},  {2, 17, 4, 2, 64, 0, 0, false, 8},   {1, 64, 1, 1, 80, 0, 3, false, 8},
                          {1, 129, 2, 1, 64, 0, 0, true, 8}, {1, 150, 1, 1, 96, 40, 0, false, 8}, {1, 200, 2, 1, 128, 70, 2, true, 8},
                          {1, 70, 2, 1, 256, 0, 0, true, 8}, {1, 1, 1, 1, 16, 0, 0, false},       {2, 31, 4, 2, 16, 0, 0, false},
                          {1, 33, 2, 1, 64, 0, 0, false},    {1, 65, 2, 2, 16, 9, 2, false},      {1, 70, 2, 1, 24, 0, 0, true},
                          {1, 40, 1, 1, 80, 100, 0, false},  {1, 34, 1, 1, 136, 0, 5, true}};
  give_shared_memory(much_shared_memory);
  for (const bool reversed : orders())
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
      for (const Shape& s : shapes) {
        SCOPED_TRACE(message_of(name_of(dtype), " B", s.B, " T", s.T, " H", s.H, " G", s.G, " D", s.D, " window ", s.window));
        run_reversed(reversed);
        const std::int64_t N = s.B * s.T;
        const HostTensor q = HostTensor(dtype, N, s.H * s.D, s.gap).randomize(1), k = HostTensor(dtype, N, s.G * s.D, s.gap).randomize(2);
        const HostTensor v = HostTensor(dtype, N, s.G * s.D).randomize(3), dout = HostTensor(dtype, N, s.H * s.D).randomize(4);
        HostTensor starts = HostTensor::vector(Dtype::i32, N);
        for (std::int64_t n = 0; n < N; ++n) starts.set(0, n, static_cast<double>(n - n % s.T % 23));
        if (s.gap == 8) {
          EXPECT_EQ(cuda::mma_attention_applies(cuda_context(), {&q.cpu(), &k.cpu(), &v.cpu(), &dout.cpu()}, s.D, 0.2),
                    dtype == Dtype::bf16);
        }
        const HostTensor scratch = HostTensor::vector(Dtype::f64, 8 << 20);
        const auto documents = [&](auto on) { return s.documents ? OptionalTensor(on(starts)) : std::nullopt; };
        HostTensor out(dtype, N, s.H * s.D), out_found = out, lse = HostTensor::vector(Dtype::f32, N * s.H), lse_found = lse;
        const AttentionOptions options{s.T, s.D, 0.2, s.window, s.softcap};
        const AttentionInputs inputs{q.cpu(), k.cpu(), v.cpu(), documents(on_cpu)};
        const AttentionInputs cuda_inputs{q.cuda(), k.cuda(), v.cuda(), documents(on_cuda)};
        cpu::attention_forward(cpu_context(), inputs, out.cpu(), lse.cpu(), workspace_of(scratch.cpu()), options);
        cuda::attention_forward(cuda_context(), cuda_inputs, out_found.cuda(), lse_found.cuda(), {}, options);
        const double tolerance = dtype == Dtype::bf16 ? 6e-3 : 2e-6;
        EXPECT_CLOSE(out_found, out, tolerance);
        EXPECT_CLOSE(lse_found, lse, 2e-6);
        HostTensor dq(dtype, N, s.H * s.D), dk(dtype, N, s.G * s.D), dv = dk, dq_found = dq, dk_found = dk, dv_found = dk;
        cpu::attention_backward(cpu_context(), dout.cpu(), inputs, out.cpu(), lse.cpu(), {dq.cpu(), dk.cpu(), dv.cpu()},
                                workspace_of(scratch.cpu()), options);
        cuda::attention_backward(cuda_context(), dout.cuda(), cuda_inputs, out.cuda(), lse.cuda(),
                                 {dq_found.cuda(), dk_found.cuda(), dv_found.cuda()}, workspace_of(scratch.cuda()), options);
        if (s.T > 1) {  // a lone key has gradient 0
          EXPECT_CLOSE(dq_found, dq, 5 * tolerance);
          EXPECT_CLOSE(dk_found, dk, 5 * tolerance);
        }
        EXPECT_CLOSE(dv_found, dv, 2 * tolerance);
      }
  give_shared_memory(little_shared_memory);
}

// Smaller tiles, where a block has less shared memory, give the same gradients.
TEST(CudaOps, AttentionInLittleSharedMemory) {
  constexpr std::int64_t T = 150, H = 2;
  give_shared_memory(much_shared_memory);
  for (const std::int64_t D : {64, 128}) {
    const cuda::Geometry geometry{{T, T, H, 1, D, 60, nullptr}, 0.2f, 0.0f};
    const HostTensor q = HostTensor(Dtype::bf16, T, H * D).randomize(1), k = HostTensor(Dtype::bf16, T, D).randomize(2);
    const HostTensor v = HostTensor(Dtype::bf16, T, D).randomize(3), dout = HostTensor(Dtype::bf16, T, H * D).randomize(4);
    const HostTensor lse = HostTensor::vector(Dtype::f32, T * H).fill(9), delta = HostTensor::vector(Dtype::f32, T * H).randomize(5);
    const auto run = [&](HostTensor& dq, HostTensor& dk, HostTensor& dv, std::size_t shared_limit) {
      const AttentionInputs inputs{q.cuda(), k.cuda(), v.cuda()};
      const Tensor on_device = dout.cuda(), statistics = lse.cuda();
      cuda::mma_attention_backward(cuda_context(), {on_device, inputs, statistics, delta.cuda().as<const float>()},
                                   {dq.cuda(), dk.cuda(), dv.cuda()}, geometry, shared_limit);
    };
    HostTensor dq(Dtype::bf16, T, H * D), dk(Dtype::bf16, T, D), dv = dk, dq_found = dq, dk_found = dk, dv_found = dk;
    run(dq, dk, dv, cuda_context().max_shared_bytes());
    run(dq_found, dk_found, dv_found, little_shared_memory);
    EXPECT_CLOSE(dq_found, dq, 0);
    EXPECT_CLOSE(dk_found, dk, 4e-3);
    EXPECT_CLOSE(dv_found, dv, 4e-3);
  }
  give_shared_memory(little_shared_memory);
}

}  // namespace
}  // namespace mst::test
