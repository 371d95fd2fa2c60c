// minisequence_gpu_bench [GROUP…]: times ops on the first GPU without Node; prints each measurement as a line of JSON.
// GROUP: kernels, products, mlp, head, attention; all of them where none is given.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <map>

#include "runtime/device.h"
#include "support.h"

namespace mst::bench {
namespace {

constexpr int warm_up = 5, repetitions = 30;
constexpr std::size_t flush_bytes = std::size_t{256} << 20;  // more than any L2
constexpr std::size_t product_workspace_bytes = std::size_t{32} << 20;

std::unique_ptr<Context> opened;

}  // namespace

cuda::Context& context() {
  return cuda::context_of(*opened);
}

Workspace product_workspace() {
  static const Buffer buffer(Dtype::f32, 1, product_workspace_bytes / sizeof(float));
  return {static_cast<const Tensor&>(buffer).data, product_workspace_bytes};
}

std::vector<std::int32_t> distinct_ids(std::int64_t N) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(N));
  for (std::int64_t n = 0; n < N; ++n) ids[static_cast<std::size_t>(n)] = static_cast<std::int32_t>(n * 7919 % V);
  return ids;
}

// The host never waits for the device in between, so the device is never idle.
std::vector<std::vector<double>> time_in_turn(const std::vector<Run>& runs) {
  static const Buffer flush(Dtype::f32, 1, flush_bytes / sizeof(float));
  std::vector<std::vector<cuda::Event>> begins, ends;
  for (std::size_t i = 0; i < runs.size(); ++i) begins.emplace_back(repetitions), ends.emplace_back(repetitions);
  for (int repetition = -warm_up; repetition < repetitions; ++repetition) {
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const Run& run = runs[i];
      if (run.prepare) run.prepare();
      if (run.is_cold) CUDA_CHECK(cudaMemsetAsync(static_cast<const Tensor&>(flush).data, 0, flush_bytes, context().stream()));
      if (repetition >= 0) begins[i][static_cast<std::size_t>(repetition)].record(context().stream());
      run.work();
      if (repetition >= 0) ends[i][static_cast<std::size_t>(repetition)].record(context().stream());
    }
  }
  context().synchronize();
  std::vector<std::vector<double>> times(runs.size());
  for (std::size_t i = 0; i < runs.size(); ++i)
    for (std::size_t j = 0; j < repetitions; ++j) times[i].push_back(ends[i][j].milliseconds_since(begins[i][j]));
  return times;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double median_ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios(a.size());
  std::transform(a.begin(), a.end(), b.begin(), ratios.begin(), std::divides<>());
  return median(ratios);
}

void report(const std::string& group, const std::string& name, const std::vector<std::pair<std::string, double>>& fields) {
  std::cout << "{\"group\": \"" << group << "\", \"name\": \"" << name << '"';
  for (const auto& [field, value] : fields) {
    std::cout << ", \"" << field << "\": ";
    if (std::isfinite(value))
      std::cout << value;
    else
      std::cout << "null";
  }
  std::cout << '}' << std::endl;
}

namespace {

void run(std::vector<std::string> names) {
  const std::map<std::string, void (*)()> groups{
      {"kernels", kernels}, {"products", products}, {"mlp", mlp}, {"head", head}, {"attention", attention}};
  if (names.empty())
    for (const auto& [name, group] : groups) names.push_back(name);
  for (const std::string& name : names) MST_CHECK(groups.count(name), "minisequence_gpu_bench: there is no group ", name);
  const auto tuning = std::filesystem::temp_directory_path() / message_of("minisequence-bench-", getpid());
  opened = open_cuda(0, {"auto", "auto", tuning.string()});
  opened->attach_thread();
  std::cout.precision(10);
  for (const std::string& name : names) groups.at(name)();
  opened->synchronize();
  for (const Context::Note& note : opened->take_notes()) MST_FAIL(note.message);
  opened.reset();
  std::filesystem::remove_all(tuning);
}

}  // namespace
}  // namespace mst::bench

int main(int count, char** arguments) {
  try {
    mst::bench::run({arguments + 1, arguments + count});
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
