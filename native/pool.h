// Fork and join over persistent threads. each(count, f) calls f(thread, i) once for every i in [0, count); the caller is
// thread 0. Pieces are taken one by one, and each() returns when all pieces are done, not when all threads have come by:
// a thread that the operating system has put off its core delays nobody unless it holds a piece.
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

    // f must not throw and must not call each(). What f writes is visible to the caller and to later pieces.
    template <class F>
    void each(int count, F&& f) {
        if (count <= 1 || num_threads_ == 1) {
            for (int i = 0; i < count; i++) f(0, i);
            return;
        }
        struct Job {
            F& f;
            int count;
        } job{f, count};
        run(count, &job, [](void* self, int thread, uint32_t num_left) {
            Job& job = *static_cast<Job*>(self);
            job.f(thread, job.count - (int)num_left);
        });
    }

private:
    using Call = void (*)(void* argument, int thread, uint32_t num_left);

    void run(int count, void* argument, Call call);
    void take_pieces(int thread);
    void worker(int thread);

    const int num_threads_;
    // (number of the job, pieces nobody has taken). Call and argument belong to the job whose pieces are left: they are
    // written while none are, so a thread that takes a piece has read the right ones.
    alignas(64) std::atomic<uint64_t> ticket_{0};
    std::atomic<Call> call_{nullptr};
    std::atomic<void*> argument_{nullptr};
    alignas(64) std::atomic<uint32_t> num_done_{0};
    alignas(64) std::atomic<uint32_t> num_jobs_{0};  // idle threads sleep on it; the top bit ends them
    std::vector<std::thread> threads_;
};

}  // namespace inferd
