// Fork and join over persistent threads. each(count, f) calls f(thread, i) once for every i in [0, count); the caller is
// thread 0. Each thread begins with its own share of the pieces, the same in every call of that count: what it wrote or
// read the last time is still in its caches. Then it takes from the end of the others' shares, and each() returns when
// all pieces are done, not when all threads have come by: a thread that the operating system has put off its core delays
// nobody unless it holds a piece.
//
// Between cores a cache line takes 100 to 300 ns, so a fork costs one line each way: the caller writes the job, a thread
// counts what it has done in a line of its own, and a share belongs to its thread's cache until somebody takes from it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "stage_clock.h"

namespace inferd {

class Pool {
public:
    explicit Pool(int num_threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int num_threads() const { return num_threads_; }

    // f must not throw and must not call each(). What f writes is visible to the caller and to later pieces.
    template <class F>
    void each(int count, F&& f) {
        const StageClock::Wall wall;
        if (count <= 1 || num_threads_ == 1) {
            const StageClock::Busy busy(0);
            for (int i = 0; i < count; i++) f(0, i);
            return;
        }
        struct Job {
            F& f;
            int first;
        } job{f, 0};
        for (; job.first < count; job.first += kMaxPieces)
            run(std::min(count - job.first, kMaxPieces), &job, [](void* self, int thread, int piece) {
                Job& job = *static_cast<Job*>(self);
                job.f(thread, job.first + piece);
            });
    }

private:
    using Call = void (*)(void* argument, int thread, int piece);
    static constexpr int kMaxPieces = 0xFFFF;

    struct alignas(128) Share {  // two lines: processors fetch lines in pairs
        // number of a job, then begin and end of the pieces nobody has taken; of an earlier job: nobody has begun
        std::atomic<uint64_t> left{0};
        alignas(128) std::atomic<uint64_t> done{0};  // number of a job, pieces of it that this thread has done
    };

    void run(int count, void* argument, Call call);
    int take(int owner, uint32_t job, int count, bool own);
    void take_pieces(int thread, uint64_t posted);
    void worker(int thread);

    const int num_threads_;
    // The job: its number and count in one word. Call and argument are written while no pieces are left, so a thread that
    // then takes a piece of the number it has read, has read the right ones.
    alignas(128) std::atomic<uint64_t> posted_{0};
    std::atomic<Call> call_{nullptr};
    std::atomic<void*> argument_{nullptr};
    alignas(128) std::atomic<uint32_t> num_sleepers_{0};
    std::atomic<uint32_t> bell_{0};  // sleepers wait for it to change
    std::atomic<bool> stop_{false};
    std::unique_ptr<Share[]> shares_;  // (num_threads,)
    std::vector<std::thread> threads_;
};

}  // namespace inferd
