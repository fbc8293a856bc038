#include "pool.h"

#include <immintrin.h>

namespace inferd {

namespace {

constexpr uint32_t kStop = 1u << 31;
constexpr int kSpins = 4000;  // about 40-100 us of pause before sleeping

// Returns the first value that differs from `seen`.
uint32_t wait_for_change(const std::atomic<uint32_t>& word, uint32_t seen) {
    for (int i = 0; i < kSpins; i++) {
        uint32_t now = word.load(std::memory_order_acquire);
        if (now != seen) return now;
        _mm_pause();
    }
    for (;;) {
        word.wait(seen, std::memory_order_acquire);
        uint32_t now = word.load(std::memory_order_acquire);
        if (now != seen) return now;
    }
}

}  // namespace

Pool::Pool(int num_threads) : num_threads_(num_threads) {
    for (int t = 1; t < num_threads; t++) threads_.emplace_back(&Pool::worker, this, t);
}

Pool::~Pool() {
    region_.store(kStop, std::memory_order_release);
    region_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Pool::start_region() {
    if (num_threads_ == 1) return;
    region_.store((region_.load(std::memory_order_relaxed) + 1) & ~kStop, std::memory_order_release);
    region_.notify_all();
}

void Pool::barrier() {
    if (num_threads_ == 1) return;
    const uint32_t now = generation_.load(std::memory_order_acquire);
    if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads_) {
        num_arrived_.store(0, std::memory_order_relaxed);
        generation_.store(now + 1, std::memory_order_release);
        generation_.notify_all();
    } else {
        wait_for_change(generation_, now);
    }
}

void Pool::worker(int thread) {
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_change(region_, seen);
        if (seen & kStop) return;
        call_(argument_, thread);
        barrier();
    }
}

}  // namespace inferd
