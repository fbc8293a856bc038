// The limits of this machine, as JSON: int8 dot-product peak and read bandwidth, with one thread and with all.
// Built by limits.py with -march=native.
#include <immintrin.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

static double seconds_of(int num_threads, const std::function<void(int)>& work) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    for (int t = 1; t < num_threads; t++) threads.emplace_back(work, t);
    work(0);
    for (auto& thread : threads) thread.join();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Independent dot products that touch no memory; returns multiply and add operations done.
static double dot_products(long rounds) {
#if defined(__AVX512VNNI__)
    for (long r = 0; r < rounds; r++)
        __asm__ volatile(
            "vpdpbusd %%zmm16,%%zmm17,%%zmm0\n vpdpbusd %%zmm16,%%zmm17,%%zmm1\n vpdpbusd %%zmm16,%%zmm17,%%zmm2\n"
            "vpdpbusd %%zmm16,%%zmm17,%%zmm3\n vpdpbusd %%zmm16,%%zmm17,%%zmm4\n vpdpbusd %%zmm16,%%zmm17,%%zmm5\n"
            "vpdpbusd %%zmm16,%%zmm17,%%zmm6\n vpdpbusd %%zmm16,%%zmm17,%%zmm7\n vpdpbusd %%zmm16,%%zmm17,%%zmm8\n"
            "vpdpbusd %%zmm16,%%zmm17,%%zmm9\n vpdpbusd %%zmm16,%%zmm17,%%zmm10\n vpdpbusd %%zmm16,%%zmm17,%%zmm11\n" ::
                : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
    return 12.0 * 128 * rounds;
#else
    for (long r = 0; r < rounds; r++)
        __asm__ volatile(
            "vpmaddubsw %%ymm12,%%ymm13,%%ymm0\n vpmaddubsw %%ymm12,%%ymm13,%%ymm1\n vpmaddubsw %%ymm12,%%ymm13,%%ymm2\n"
            "vpmaddubsw %%ymm12,%%ymm13,%%ymm3\n vpmaddubsw %%ymm12,%%ymm13,%%ymm4\n vpmaddubsw %%ymm12,%%ymm13,%%ymm5\n" ::
                : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5");
    return 6.0 * 64 * rounds;
#endif
}

// Reads `size` bytes; the sum keeps the loads alive.
static uint64_t read_all(const char* data, size_t size) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i < size; i += 128) {
        const __m256i* p = (const __m256i*)(data + i);
        a = _mm256_add_epi8(a, _mm256_load_si256(p));
        b = _mm256_add_epi8(b, _mm256_load_si256(p + 1));
        c = _mm256_add_epi8(c, _mm256_load_si256(p + 2));
        d = _mm256_add_epi8(d, _mm256_load_si256(p + 3));
    }
    a = _mm256_add_epi8(_mm256_add_epi8(a, b), _mm256_add_epi8(c, d));
    return (uint64_t)_mm256_extract_epi64(a, 0);
}

static double best_tops(int num_threads) {
    double best = 0;
    for (int repeat = 0; repeat < 5; repeat++) {
        std::vector<double> done(num_threads);
        double seconds = seconds_of(num_threads, [&](int t) { done[t] = dot_products(20'000'000); });
        double total = 0;
        for (double ops : done) total += ops;
        best = total / seconds / 1e12 > best ? total / seconds / 1e12 : best;
    }
    return best;
}

static double best_bandwidth(int num_threads) {
    constexpr size_t kSize = 512ull << 20;
    std::vector<char*> data;
    for (int t = 0; t < num_threads; t++) {
        data.push_back((char*)std::aligned_alloc(1 << 21, kSize));
        std::memset(data[t], t + 1, kSize);
    }
    volatile uint64_t sink = 0;
    double best = 0;
    for (int repeat = 0; repeat < 5; repeat++) {
        double seconds = seconds_of(num_threads, [&](int t) { sink = sink + read_all(data[t], kSize); });
        double rate = (double)num_threads * kSize / seconds / 1e9;
        best = rate > best ? rate : best;
    }
    for (char* p : data) std::free(p);
    return best;
}

int main() {
    const int all = (int)std::thread::hardware_concurrency();
    std::printf("{\"threads\": %d, \"int8_tops_1\": %.3f, \"int8_tops\": %.3f, \"read_gb_s_1\": %.1f, \"read_gb_s\": %.1f}\n",
                all, best_tops(1), best_tops(all), best_bandwidth(1), best_bandwidth(all));
}
