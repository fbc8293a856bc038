// A persistent pool for SPMD regions: run(f) calls f(thread) on every thread, the caller being thread 0.
// barrier() inside a region lets all threads meet; both spin briefly, then sleep, so that they yield when cores are short.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace inferd {

class Pool {
public:
    explicit Pool(int num_threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int num_threads() const { return num_threads_; }

    // body must not throw: an exception in a region would leave the others at a barrier.
    template <class Body>
    void run(Body& body) {
        call_ = [](void* self, int thread) { (*static_cast<Body*>(self))(thread); };
        argument_ = &body;
        start_region();
        body(0);
        barrier();
    }

    void barrier();

private:
    void start_region();
    void worker(int thread);

    const int num_threads_;
    void (*call_)(void*, int) = nullptr;
    void* argument_ = nullptr;
    alignas(64) std::atomic<uint32_t> region_{0};    // counts regions; the top bit ends the threads
    alignas(64) std::atomic<int> num_arrived_{0};
    alignas(64) std::atomic<uint32_t> generation_{0};  // counts barriers passed
    std::vector<std::thread> threads_;
};

}  // namespace inferd
