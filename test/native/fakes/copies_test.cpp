// Copies beside commands, on a CUDA runtime that runs one side at once and the other as late as events allow: an event that is missing
// lets a copy or a command meet the wrong bytes.
#include "cuda/copies.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <vector>

namespace mst::cuda {
namespace {

constexpr std::size_t n = 64;
using Bytes = std::vector<char>;
using Way = mst::Context::CopyStream;

class InOrder : public testing::TestWithParam<const char*> {
 protected:
  InOrder() {
    setenv("FAKE_CUDA_ORDER", GetParam(), 1);
  }
  ~InOrder() override {
    commands().synchronize();
  }
  void fill(Bytes& to, int value) {
    CUDA_CHECK(cudaMemsetAsync(to.data(), value, n, commands().get()));
  }
  void move(Bytes& to, const Bytes& from) {
    CUDA_CHECK(cudaMemcpyAsync(to.data(), from.data(), n, cudaMemcpyDefault, commands().get()));
  }
  void copy(Way way, Bytes& to, const Bytes& from, std::uint64_t event) {
    copies_.copy(way, to.data(), from.data(), n, event);
  }
  void synchronize() {
    commands().synchronize();
    copies_.synchronize();
  }
  // The first stream of the process.
  static Stream& commands() {
    static Stream* const stream = new Stream;
    return *stream;
  }

  Copies copies_{commands()};
  Bytes a_ = Bytes(n), b_ = Bytes(n), c_ = Bytes(n);
};

TEST_P(InOrder, a_copy_reads_what_commands_before_it_wrote) {
  fill(a_, 1);
  copy(Way::to_host, b_, a_, 1);
  copies_.synchronize();
  EXPECT_EQ(b_, Bytes(n, 1));
}

TEST_P(InOrder, commands_after_a_wait_overwrite_what_was_copied) {
  for (int i = 1; i < 5; ++i) {
    fill(a_, i);
    copy(Way::to_host, b_, a_, i);
    copies_.wait_for(i);
    fill(a_, 100);
    move(c_, b_);
    synchronize();
    EXPECT_EQ(b_, Bytes(n, i));
    EXPECT_EQ(c_, Bytes(n, i));
    EXPECT_EQ(a_, Bytes(n, 100));
  }
}

TEST_P(InOrder, events_are_used_again_while_others_are_under_way) {
  Bytes d(n), e(n);
  fill(a_, 1);
  copy(Way::to_host, b_, a_, 1);
  copies_.wait_for(1);
  fill(a_, 2);
  copy(Way::to_device, c_, a_, 2);
  copy(Way::to_host, d, b_, 3);
  copies_.wait_for(2);
  fill(a_, 3);
  copies_.wait_for(3);
  fill(b_, 4);
  move(e, c_);
  synchronize();
  EXPECT_EQ(c_, Bytes(n, 2));
  EXPECT_EQ(d, Bytes(n, 1));
  EXPECT_EQ(e, Bytes(n, 2));
}

TEST_P(InOrder, the_last_copy_of_a_stream_waits_for_all_before_it) {
  fill(a_, 1);
  copy(Way::to_host, b_, a_, 1);
  copy(Way::to_host, c_, a_, 2);
  copies_.wait_for(2);
  copies_.wait_for(1);  // known to be done
  copies_.wait_for(7);  // never was
  fill(a_, 2);
  synchronize();
  EXPECT_EQ(b_, Bytes(n, 1));
  EXPECT_EQ(c_, Bytes(n, 1));
}

TEST_P(InOrder, copies_under_way_end_before_their_owner) {
  fill(a_, 1);
  {
    Copies copies(commands());
    copies.copy(Way::to_host, b_.data(), a_.data(), n, 1);
  }
  EXPECT_EQ(b_, Bytes(n, 1));
}

INSTANTIATE_TEST_SUITE_P(copies, InOrder, testing::Values("commands-first", "copies-first"));

}  // namespace
}  // namespace mst::cuda
