// Owners of CUDA streams and events. These belong to the device that is current when they are made.
#pragma once

#include <cuda_runtime.h>

#include "common/check.h"

namespace mst::cuda {

// Does not wait for the legacy default stream.
class Stream {
 public:
  Stream() {
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~Stream() {
    cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const {
    return stream_;
  }
  void synchronize() const {
    CUDA_CHECK(cudaStreamSynchronize(stream_));
  }

 private:
  cudaStream_t stream_ = nullptr;
};

// A point in a stream's work. It records the time unless flags say otherwise.
class Event {
 public:
  explicit Event(unsigned flags = cudaEventDefault) {
    CUDA_CHECK(cudaEventCreateWithFlags(&event_, flags));
  }
  ~Event() {
    cudaEventDestroy(event_);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) {
    CUDA_CHECK(cudaEventRecord(event_, stream));
  }
  // Work that is enqueued on the stream from now on runs after the last recording of the event.
  void delay(cudaStream_t stream) const {
    CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0));
  }
  void synchronize() const {
    CUDA_CHECK(cudaEventSynchronize(event_));
  }
  // Both events must have completed.
  float milliseconds_since(const Event& begin) const {
    float milliseconds = 0;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin.event_, event_));
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace mst::cuda
