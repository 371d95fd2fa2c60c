// The command queue: whose error is whose, on devices that tell at once and on those that tell late; the end of a queue.
#include "runtime/queue.h"

#include <gtest/gtest.h>

#include <array>
#include <future>
#include <optional>
#include <random>

namespace mst {
namespace {

// A device without memory, whose commands may note failures for later, as kernels do.
class LateContext final : public Context {
 public:
  LateContext() : Context(Device{}) {}
  Memory& memory() override {
    MST_FAIL("no memory");
  }
  void attach_thread() override {}
  void copy_in(void*, const void*, std::size_t) override {}
  void copy_out(void*, const void*, std::size_t) override {}
  void copy_within(void*, const void*, std::size_t) override {}
  void fill_bytes(void*, int, std::size_t) override {}
  void synchronize() override {
    if (!synchronize_error.empty()) MST_FAIL(std::exchange(synchronize_error, ""));
  }

  void begin_command(std::uint64_t number) override {
    command_ = number;
  }
  std::size_t num_notes() const override {
    return num_notes_;
  }
  std::vector<Note> take_notes() override {
    num_notes_ = 0;
    return std::exchange(notes_, {});
  }
  // The running command has a kernel that may note something; message: it does.
  void note(const std::string& message) {
    ++num_notes_;
    if (!message.empty()) notes_.push_back({command_, message});
  }

  std::string synchronize_error;

 private:
  std::uint64_t command_ = 0;
  std::size_t num_notes_ = 0;
  std::vector<Note> notes_;
};

LateContext& late(Context& context) {
  return static_cast<LateContext&>(context);
}

Access access(Access::Kind kind, std::uintptr_t begin, std::uintptr_t end, std::uint64_t owner = 0) {
  return {kind, begin, end, owner};
}
Accesses reads(std::uintptr_t begin, std::uintptr_t end, std::uint64_t owner = 0) {
  return {access(Access::read, begin, end, owner)};
}
Accesses writes(std::uintptr_t begin, std::uintptr_t end, std::uint64_t owner = 0) {
  return {access(Access::write, begin, end, owner)};
}

const Queue::Command succeed = [](Context&) {};
Queue::Command fail(const std::string& message) {
  return [message](Context&) { MST_FAIL(message); };
}
// Fails, and that shows when the device is waited for.
Queue::Command fail_late(const std::string& message) {
  return [message](Context& context) { late(context).note(message); };
}

// What a read of these bytes is told; empty: nothing.
std::string told(Queue& queue, Accesses accesses) {
  std::promise<std::string> result;
  queue.fence(
      succeed,
      [&](const std::exception_ptr& error) {
        try {
          if (error) std::rethrow_exception(error);
          result.set_value("");
        } catch (const std::exception& thrown) {
          result.set_value(thrown.what());
        }
      },
      std::move(accesses));
  return result.get_future().get();
}

// Both kinds of failure have to come to the same.
class QueueErrors : public testing::TestWithParam<bool> {
 protected:
  Queue::Command failing(const std::string& message) {
    return GetParam() ? fail_late(message) : fail(message);
  }
  Queue queue{std::make_unique<LateContext>()};
};
INSTANTIATE_TEST_SUITE_P(AtOnceAndLate, QueueErrors, testing::Bool());

TEST_P(QueueErrors, BelongToWhatTheCommandWrites) {
  queue.push(failing("first"), {access(Access::read, 0, 8), access(Access::write, 8, 16)});
  queue.push(succeed, {access(Access::read, 8, 16), access(Access::write, 16, 24)});
  queue.push(succeed, {access(Access::read, 16, 24), access(Access::update, 24, 32)});
  queue.push(failing("second"), writes(32, 40));
  queue.push(succeed, {access(Access::read, 32, 40), access(Access::read, 24, 32), access(Access::write, 40, 48)});
  for (int time = 0; time < 2; ++time) {
    EXPECT_EQ(told(queue, reads(0, 8)), "");
    for (const int begin : {8, 16, 24, 40}) EXPECT_EQ(told(queue, reads(begin, begin + 8)), "first") << begin;
    EXPECT_EQ(told(queue, reads(32, 40)), "second");
    EXPECT_EQ(told(queue, reads(48, 64)), "");
    EXPECT_EQ(told(queue, {}), "");
  }
}

TEST_P(QueueErrors, LeaveWithTheBytesThatAreWritten) {
  queue.push(failing("failed"), writes(0, 32));
  queue.push(succeed, writes(8, 16));
  EXPECT_EQ(told(queue, reads(0, 8)), "failed");
  EXPECT_EQ(told(queue, reads(8, 16)), "");
  EXPECT_EQ(told(queue, reads(15, 17)), "failed");
  queue.push(succeed, {access(Access::update, 16, 20)});  // reads what failed
  EXPECT_EQ(told(queue, reads(16, 20)), "failed");
  queue.push(succeed, writes(0, 32));
  EXPECT_EQ(told(queue, reads(0, 32)), "");
}

TEST_P(QueueErrors, AreNotInheritedWithTheMemory) {
  queue.push(failing("failed"), writes(0, 32, 1));
  EXPECT_EQ(told(queue, reads(0, 32, 1)), "failed");
  EXPECT_EQ(told(queue, reads(0, 16, 2)), "");
  queue.push(succeed, {access(Access::read, 16, 32, 3), access(Access::write, 64, 80, 4)});
  EXPECT_EQ(told(queue, reads(64, 80, 4)), "");
}

TEST_P(QueueErrors, OfACommandThatWritesNothingAreToldOnceByTheNextFence) {
  queue.push(failing("broken"), reads(0, 8));
  queue.push(failing("check"), {});
  EXPECT_EQ(told(queue, reads(0, 8)), "check");
  EXPECT_EQ(told(queue, reads(0, 8)), "");
}

TEST(Queue, AfterAFailureThatNothingTellsTheCommandOfAllSinceTheLastFenceHaveFailed) {
  Queue queue(std::make_unique<LateContext>());
  queue.push(fail_late(""), writes(0, 8));
  EXPECT_EQ(told(queue, reads(0, 8)), "");
  queue.push(fail_late(""), writes(8, 16));
  queue.push([](Context& context) { late(context).synchronize_error = "lost track"; }, writes(16, 24));
  EXPECT_EQ(told(queue, reads(8, 16)), "lost track");
  EXPECT_EQ(told(queue, reads(16, 24)), "lost track");
  EXPECT_EQ(told(queue, reads(0, 8)), "lost track");  // once, as nobody's
  EXPECT_EQ(told(queue, reads(0, 8)), "");
}

TEST(Queue, LooksAtNotesBeforeTheyAreTooMany) {
  Queue queue(std::make_unique<LateContext>());
  std::size_t most = 0;
  for (std::size_t i = 0; i < 3 * Context::max_notes; ++i)
    queue.push(
        [&most, i](Context& context) {
          late(context).note(i == 100 ? "the hundredth" : "");
          most = std::max(most, context.num_notes());
        },
        writes(8 * i, 8 * i + 8));
  EXPECT_EQ(told(queue, reads(800, 808)), "the hundredth");
  EXPECT_EQ(told(queue, reads(808, 816)), "");
  EXPECT_EQ(most, Context::max_notes);
}

// Random commands, against a model that has an error for each byte and knows of each failure at once.
TEST(Queue, AgreesWithAModelOfEachByte) {
  constexpr int num_bytes = 24;
  std::mt19937 random(1);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 200; ++round) {
    Queue queue(std::make_unique<LateContext>());
    std::array<std::optional<int>, num_bytes> model;  // the command that failed
    for (int command = 0; command < 60; ++command) {
      Accesses accesses;
      std::optional<int> failed;
      for (int i = below(3); i >= 0; --i) {
        const int begin = below(num_bytes), end = begin + below(num_bytes - begin + 1);
        const auto kind = static_cast<Access::Kind>(below(3));
        accesses.push_back(access(kind, static_cast<std::uintptr_t>(begin), static_cast<std::uintptr_t>(end)));
        if (kind == Access::write) continue;
        for (int at = begin; at < end; ++at)
          if (model[at] && (!failed || *model[at] < *failed)) failed = model[at];
      }
      const int what = below(8);
      if (what == 0) {
        Accesses only_reads;
        for (Access each : accesses)
          if (each.kind == Access::read) only_reads.push_back(each);
        std::optional<int> first;
        for (const Access& each : only_reads)
          for (auto at = each.begin; at < each.end; ++at)
            if (model[at] && (!first || *model[at] < *first)) first = model[at];
        ASSERT_EQ(told(queue, only_reads), first ? std::to_string(*first) : "") << "round " << round << ", command " << command;
        continue;
      }
      const bool fails = what == 1 || what == 2, is_read_only = std::none_of(accesses.begin(), accesses.end(), [](const Access&each) {
                                                   return each.kind != Access::read && each.begin < each.end;
                                                 });
      if (fails && is_read_only) continue;
      const std::string name = std::to_string(command);
      queue.push(what == 1 ? fail(name) : what == 2 ? fail_late(name) : what == 3 ? fail_late("") : succeed, accesses);
      if (fails && !failed) failed = command;
      for (const Access& each : accesses)
        if (each.kind != Access::read)
          for (auto at = each.begin; at < each.end; ++at) model[at] = failed;
    }
  }
}

TEST(Queue, StopsAfterTheRunningCommandAndTellsFencesThatWereDropped) {
  std::promise<void> begun, go_on;
  std::string told_at_end;
  bool has_run = false;
  {
    Queue queue(std::make_unique<LateContext>());
    queue.push([&](Context&) {
      begun.set_value();
      go_on.get_future().wait();
    });
    queue.push([&](Context&) { has_run = true; });
    queue.fence(nullptr, [&](const std::exception_ptr& error) {
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& thrown) {
        told_at_end = thrown.what();
      }
    });
    begun.get_future().wait();
    std::thread stopping([&] { queue.stop(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // until it waits, most likely; right either way
    go_on.set_value();
    stopping.join();
    queue.push([&](Context&) { has_run = true; });
    EXPECT_EQ(told_at_end, "");
  }
  EXPECT_FALSE(has_run);
  EXPECT_EQ(told_at_end, "the device was closed before the command ran");
}

}  // namespace
}  // namespace mst
