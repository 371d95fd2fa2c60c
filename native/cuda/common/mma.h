// Tensor-core products of bf16 and the copies that feed them, for sm_80 and newer. Under nvcc they are PTX. In the native tests they do the
// same exchange of fragments between lanes, as the PTX ISA documents it ("Matrix Fragments for mma.m16n8k16").
//
// A fragment is a lane's share of a matrix. With g = lane / 4 and t = lane % 4, each register holds two neighbouring bf16, the one with the
// lower index in the low half:
//   a (16x16)  a[0] row g, columns 2t..   a[1] row g+8, columns 2t..   a[2] row g, columns 2t+8..   a[3] row g+8, columns 2t+8..
//   b (16x8)   b[0] rows 2t.., column g   b[1] rows 2t+8.., column g
//   d (16x8)   d[0], d[1] row g, columns 2t, 2t+1                      d[2], d[3] row g+8, columns 2t, 2t+1
#pragma once

#include "launch.h"

namespace mst::cuda {

// d += a · b. All lanes of the warp must call it.
__device__ inline void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  emulation::mma(d, a, b, emulation::Where::current());
#endif
}

// Loads four 8x8 matrices from shared memory. Lane i passes row i % 8 of matrix i / 8: 8 elements, aligned to 16 bytes. r[m] receives
// elements 2t, 2t+1 of row g of matrix m.
__device__ inline void load_matrices(std::uint32_t (&r)[4], const __nv_bfloat16* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#else
  emulation::load_matrices(r, row, false, emulation::Where::current());
#endif
}

// The same for the transposed matrices: r[m] receives elements 2t, 2t+1 of column g of matrix m.
__device__ inline void load_matrices_transposed(std::uint32_t (&r)[4], const __nv_bfloat16* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#else
  emulation::load_matrices(r, row, true, emulation::Where::current());
#endif
}

// Starts to copy the first `bytes` (0 to 16) from global to shared memory, both aligned to 16 bytes. The rest of the 16 bytes becomes 0.
__device__ inline void copy_async(__nv_bfloat16* to, const __nv_bfloat16* from, int bytes) {
#ifdef __CUDACC__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(to))), "l"(from),
               "r"(bytes)
               : "memory");
#else
  emulation::copy_async(to, from, bytes, emulation::Where::current());
#endif
}

// Makes a group of the copies that the thread has started since the last group.
__device__ inline void commit_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emulation::commit_copies();
#endif
}

// Waits until all of the thread's groups but the newest `pending` are complete.
template <int pending>
__device__ inline void wait_for_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#else
  emulation::wait_for_copies(pending);
#endif
}

}  // namespace mst::cuda
