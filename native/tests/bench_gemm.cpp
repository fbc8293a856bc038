// Speed of the matrix products on one thread, as a share of the dot-product port peak measured beside each figure.
// bench_gemm [rows,rows,...] [part of a shape's name]; INFERD_ISA chooses the kernels.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <string>
#include <vector>

#include "kernels.h"

namespace {

using namespace inferd;

// of this thread: other processes on the cores do not count
double seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Best of `repeats` runs of body, each at least `floor` seconds long; seconds of one call.
template <class Body>
double best_time(Body body, int repeats = 3, double floor = 0.01) {
    double best = 1e9;
    long calls = 1;
    for (int i = 0; i < repeats;) {
        const double begin = seconds();
        for (long c = 0; c < calls; c++) body();
        const double took = seconds() - begin;
        if (took < floor) {
            calls *= 2;
            continue;
        }
        best = std::min(best, took / (double)calls);
        i++;
    }
    return best;
}

// 1e9 operations per second of 24 independent dot-product chains; 0 without AVX-512 VNNI
double port_peak() {
    if (std::strcmp(kernels().name, "avx512")) return 0;
    auto body = [] {
        for (int i = 0; i < 1000; i++)
            __asm__ volatile(
                ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,20,21,22,23,24,25,26,27\n"
                "vpdpbusd %%zmm16, %%zmm17, %%zmm\\n\n"
                ".endr\n" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    };
    return 24e3 * 128 / best_time(body, 3, 0.003) / 1e9;
}

struct Shape {
    const char* name;
    int type, n, k;
};
constexpr Shape kShapes[] = {
    {"smollm2 qkv q4_1", 3, 960, 576},      {"smollm2 gate_up q4_1", 3, 3072, 576}, {"smollm2 down q4_1", 3, 576, 1536},
    {"gemma3 gate_up q5_0", 6, 4096, 640},  {"gemma3 down q6_k", 14, 640, 2048},    {"gemma3 head q8_0", 8, 32768, 640},
    {"qwen gate_up q4_k", 12, 17920, 1536}, {"qwen down q6_k", 14, 1536, 8960},     {"qwen down q4_k", 12, 1536, 8960},
    {"llama4b gate_up q5_k", 13, 8192, 2560}, {"head q6_k", 14, 49152, 1536},       {"q4_0", 2, 4096, 4096},
};

struct Aligned {
    // every pair of bytes a normal fp16, so that no product is slow for being denormal
    explicit Aligned(size_t bytes) : data(static_cast<uint8_t*>(::operator new(bytes + 4096, std::align_val_t(64)))) {
        for (size_t i = 0; i < bytes + 4096; i++) data[i] = (uint8_t)(0x20 + (i * 2654435761u >> 13) % 32);
    }
    ~Aligned() { ::operator delete(data, std::align_val_t(64)); }
    uint8_t* data;
};

void run(const Shape& shape, int m) {
    const size_t bytes = packed_bytes(shape.type, shape.n, shape.k);
    const Aligned weights(bytes);
    const PackedMatrix w = make_packed(shape.type, shape.n, shape.k, weights.data);
    std::vector<float> x((size_t)m * shape.k), out((size_t)m * shape.n);  // (m, k), (m, n)
    for (size_t i = 0; i < x.size(); i++) x[i] = (float)((int)(i * 2654435761u >> 16 & 255) - 128) / 64;
    std::vector<int8_t> q((size_t)m * shape.k);
    std::vector<float> floats((size_t)m * shape.k / 16 * 3);
    std::vector<int32_t> ints(floats.size());
    const QuantRows rows = make_quant_rows(m, shape.k, q.data(), floats.data(), ints.data());
    const KernelTable& table = kernels();
    const double quantize = best_time([&] { table.quantize_rows(x.data(), shape.k, 0, m, rows); }, 3, 0.002);
    double peak = port_peak();
    const double time = best_time([&] { table.gemm_quant(w, rows, 0, w.num_panels, out.data(), shape.n, false); });
    peak = std::max(peak, port_peak());
    const double gops = 2e-9 * m * shape.n * shape.k / time;
    std::printf("%-22s m %4d %9.1f us %7.1f GOPS %5.1f GB/s", shape.name, m, time * 1e6, gops, (double)bytes / time / 1e9);
    if (peak > 0) std::printf("  %4.1f %% of peak %.0f", 100 * gops / peak, peak);
    std::printf("  quantize %.2f ns/value\n", quantize * 1e9 / ((double)m * shape.k));
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<int> rows;
    for (const char* at = argc > 1 ? argv[1] : "1,8,12,32,96,512"; *at;) {
        char* end;
        rows.push_back((int)std::strtol(at, &end, 10));
        at = *end ? end + 1 : end;
    }
    std::printf("kernels %s\n", kernels().name);
    for (const Shape& shape : kShapes)
        for (int m : rows)
            if (argc < 3 || std::strstr(shape.name, argv[2])) run(shape, m);
}
