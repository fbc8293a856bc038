#include "pool.h"

#include <immintrin.h>
#include <sched.h>

namespace inferd {

namespace {

constexpr uint32_t kStop = 1u << 31;
// A pause is about 15 ns. Past kSpins the core is offered to others between looks; an idle thread looks until kLooks,
// which outlasts the gap between two steps, then it sleeps.
constexpr int kSpins = 500;
constexpr int kLooks = 1000;

void wait_a_little(int look) {
    if (look < kSpins)
        _mm_pause();
    else
        sched_yield();
}

}  // namespace

Pool::Pool(int num_threads) : num_threads_(num_threads) {
    for (int t = 1; t < num_threads; t++) threads_.emplace_back(&Pool::worker, this, t);
}

Pool::~Pool() {
    num_jobs_.store(kStop);
    num_jobs_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Pool::run(int count, void* argument, Call call) {
    num_done_.store(0, std::memory_order_relaxed);
    call_.store(call, std::memory_order_relaxed);
    argument_.store(argument, std::memory_order_relaxed);
    const uint32_t job = (num_jobs_.load(std::memory_order_relaxed) + 1) & ~kStop;
    ticket_.store((uint64_t)job << 32 | (uint32_t)count, std::memory_order_release);
    num_jobs_.store(job);  // sequentially consistent, like the count of sleepers that notify_all() reads next
    num_jobs_.notify_all();
    take_pieces(0);
    for (int look = 0; num_done_.load(std::memory_order_acquire) != (uint32_t)count; look++) wait_a_little(look);
}

void Pool::take_pieces(int thread) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while ((uint32_t)ticket > 0) {
        const Call call = call_.load(std::memory_order_relaxed);
        void* argument = argument_.load(std::memory_order_relaxed);
        if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
        call(argument, thread, (uint32_t)ticket);
        num_done_.fetch_add(1, std::memory_order_acq_rel);
        ticket = ticket_.load(std::memory_order_acquire);
    }
}

void Pool::worker(int thread) {
    uint32_t seen = 0;
    for (int look = 0;; look++) {
        const uint32_t now = num_jobs_.load(std::memory_order_acquire);
        if (now & kStop) return;
        if (now != seen) {
            seen = now;
            look = 0;
            take_pieces(thread);
        } else if (look < kLooks) {
            wait_a_little(look);
        } else {
            num_jobs_.wait(seen);
        }
    }
}

}  // namespace inferd
