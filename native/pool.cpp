#include "pool.h"

#include <immintrin.h>
#include <sched.h>

namespace inferd {

namespace {

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

uint32_t number_of(uint64_t word) { return (uint32_t)(word >> 32); }
bool is_before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

}  // namespace

Pool::Pool(int num_threads) : num_threads_(num_threads), shares_(new Share[num_threads]) {
    for (int t = 1; t < num_threads; t++) threads_.emplace_back(&Pool::worker, this, t);
}

Pool::~Pool() {
    stop_.store(true);
    bell_.fetch_add(1);
    bell_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Pool::run(int count, void* argument, Call call) {
    const uint64_t job = (uint64_t)(number_of(posted_.load(std::memory_order_relaxed)) + 1) << 32 | (uint32_t)count;
    call_.store(call, std::memory_order_relaxed);
    argument_.store(argument, std::memory_order_relaxed);
    posted_.store(job);  // sequentially consistent, like the sleepers' count and their last look
    if (num_sleepers_.load() > 0) {
        bell_.fetch_add(1);
        bell_.notify_all();
    }
    take_pieces(0, job);
    for (int look = 0;; look++) {
        int num_done = 0;
        for (int t = 0; t < num_threads_; t++) {
            const uint64_t done = shares_[t].done.load(std::memory_order_acquire);
            if (number_of(done) == number_of(job)) num_done += (int)(uint32_t)done;
        }
        if (num_done == count) return;
        wait_a_little(look);
    }
}

// A piece of the owner's share, -1 when none is left: the first for the owner, the last for others.
int Pool::take(int owner, uint32_t job, int count, bool own) {
    const uint64_t first = (uint64_t)count * owner / num_threads_, end = (uint64_t)count * (owner + 1) / num_threads_;
    if (first == end) return -1;
    std::atomic<uint64_t>& left = shares_[owner].left;
    uint64_t now = left.load(std::memory_order_acquire);
    for (;;) {
        if (is_before(job, number_of(now))) return -1;  // this job has long been done
        const bool begun = number_of(now) == job;
        const uint64_t low = begun ? now >> 16 & 0xFFFF : first, high = begun ? now & 0xFFFF : end;
        if (low == high) return -1;
        const uint64_t next = (uint64_t)job << 32 | (low + own) << 16 | (high - !own);
        if (left.compare_exchange_weak(now, next, std::memory_order_acq_rel, std::memory_order_acquire))
            return (int)(own ? low : high - 1);
    }
}

void Pool::take_pieces(int thread, uint64_t posted) {
    const Call call = call_.load(std::memory_order_relaxed);
    void* argument = argument_.load(std::memory_order_relaxed);
    const uint32_t job = number_of(posted);
    uint64_t done = (uint64_t)job << 32;
    for (int i = 0; i < num_threads_; i++) {
        const int owner = (thread + i) % num_threads_;
        for (int piece; (piece = take(owner, job, (int)(uint32_t)posted, i == 0)) >= 0;) {
            {
                const StageClock::Busy busy(thread);
                call(argument, thread, piece);
            }
            shares_[thread].done.store(++done, std::memory_order_release);
        }
    }
}

void Pool::worker(int thread) {
    uint64_t seen = 0;
    for (int look = 0; !stop_.load(std::memory_order_relaxed); look++) {
        const uint64_t posted = posted_.load(std::memory_order_acquire);
        if (posted != seen) {
            seen = posted;
            look = 0;
            take_pieces(thread, posted);
        } else if (look < kLooks) {
            wait_a_little(look);
        } else {
            num_sleepers_.fetch_add(1);
            const uint32_t bell = bell_.load();
            if (posted_.load() == seen && !stop_.load()) bell_.wait(bell);
            num_sleepers_.fetch_sub(1);
            look = 0;
        }
    }
}

}  // namespace inferd
