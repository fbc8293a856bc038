// Speed of attend(): bf16 multiply-adds per second against the port peak measured in the same process, one thread.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels.h"

using namespace inferd;

namespace {

double seconds(auto&& f) {
    double best = 1e9;
    for (int i = 0; i < 15; i++) {
        const auto begin = std::chrono::steady_clock::now();
        f();
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
}

// Multiply-adds per second of independent vdpbf16ps; 0 where the processor has none.
__attribute__((target("avx512f"))) double port_peak() {
    if (!__builtin_cpu_supports("avx512bf16")) return 0;
    constexpr int kRounds = 200000;
    const double time = seconds([] __attribute__((target("avx512f"))) {
        __m512 a[12];
        for (auto& x : a) x = _mm512_setzero_ps();
        const __m512i w = _mm512_setzero_si512();
        for (int i = 0; i < kRounds; i++)
#pragma GCC unroll 12
            for (auto& x : a) __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(x) : "v"(w));
    });
    return 12.0 * kRounds * 32 / time;
}

void bench(KvType type, int rows, int dim, int num_keys, double peak) {
    const int size = 32, blocks = num_keys / size;
    const ptrdiff_t head = kv_head_bytes(type, size, dim), stride = 2 * head;
    std::vector<uint8_t> cache(blocks * stride);
    for (size_t i = 0; i < cache.size(); i++) cache[i] = i % 2 ? 0x3D : (uint8_t)std::rand();  // small positive numbers of any type
    std::vector<int32_t> table(blocks);
    for (int i = 0; i < blocks; i++) table[i] = i;
    std::vector<float> q(kMaxAttendRows * dim, 0.1f), out(kMaxAttendRows * dim);
    float max[kMaxAttendRows], sum[kMaxAttendRows];
    std::vector<int> begin(rows, 0), end(rows, num_keys);
    const KvView kv{cache.data(), table.data(), stride, 0, head, size, dim};
    const AttendRows queries{rows, q.data(), begin.data(), end.data(), 0};
    const int repeats = std::max(1, 16 * 256 / num_keys);
    const double time = seconds([&] {
        for (int i = 0; i < repeats; i++)
            for (int key = 0; key < num_keys; key += kAttendSplit)
                kernels().kv[(int)type].attend(kv, queries, key, std::min(key + kAttendSplit, num_keys), {max, sum, out.data()});
    });
    const double rate = 2.0 * rows * dim * num_keys * repeats / time;
    std::printf("%s rows %2d dim %3d keys %5d  %7.1f G/s", type == KvType::bf16 ? "bf16" : "int8", rows, dim, num_keys, rate / 1e9);
    if (peak > 0) std::printf("  %4.1f %% of the port peak", 100 * rate / peak);
    std::printf("  %6.1f GB/s of K and V\n", (double)cache.size() * repeats / time / 1e9);
}

}  // namespace

int main() {
    const double peak = port_peak();
    std::printf("%s, port peak %.1f G multiply-adds/s\n", kernels().name, peak / 1e9);
    for (KvType type : {KvType::bf16, KvType::int8})
        for (int dim : {64, 128, 256})
            for (int rows : {1, 3, 4, 6, 12})
                for (int keys : {64, 256, 8192}) bench(type, rows, dim, keys, peak);
}
