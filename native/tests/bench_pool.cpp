// What a fork and join of the thread pool costs: bench_pool [threads]. Empty pieces, and pieces of 5 microseconds.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "pool.h"

namespace {

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void spin(double seconds) {
    for (const double end = now() + seconds; now() < end;) {
    }
}

// Microseconds of one each() over `count` pieces, best of 20 runs of 1,000.
double each_us(inferd::Pool& pool, int count, double piece) {
    double best = 1e9;
    for (int run = 0; run < 20; run++) {
        const double begin = now();
        for (int i = 0; i < 1000; i++)
            pool.each(count, [&](int, int) {
                if (piece > 0) spin(piece);
            });
        best = std::min(best, (now() - begin) * 1e3);
    }
    return best;
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : (int)std::thread::hardware_concurrency();
    inferd::Pool pool(threads);
    for (int count : {threads, 4 * threads})
        for (double piece : {0.0, 5e-6})
            std::printf("threads %d pieces %2d of %.0f us %8.2f us\n", threads, count, piece * 1e6,
                        each_us(pool, count, piece));
}
