// Loops over rows on several threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace mst::cpu {

// Calls body(begin, end) for near equal parts of [0, n), one per thread. Each part has at least `grain` items, unless n has fewer. The
// parts depend only on n, grain and the number of threads. The first exception of a part is rethrown here.
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, Body&& body) {
  if (n <= 0) return;
  const std::int64_t num_parts = std::clamp<std::int64_t>(n / std::max<std::int64_t>(grain, 1), 1, omp_get_max_threads());
  if (num_parts == 1) return body(std::int64_t{0}, n);
  std::exception_ptr error;
#pragma omp parallel for num_threads(static_cast <int>(num_parts)) schedule(static, 1)
  for (std::int64_t part = 0; part < num_parts; ++part) {
    try {
      body(n * part / num_parts, n * (part + 1) / num_parts);
    } catch (...) {
#pragma omp critical(mst_parallel_for)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

// Calls body(task, thread) for tasks 0 … n - 1 of unequal size. The next free thread takes the next task; 0 <= thread <
// omp_get_max_threads(). A task's result must not depend on the thread. The first exception is rethrown here.
template <class Body>
void parallel_tasks(std::int64_t n, Body&& body) {
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t task = 0; task < n; ++task) {
    try {
      body(task, omp_get_thread_num());
    } catch (...) {
#pragma omp critical(mst_parallel_for)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace mst::cpu
