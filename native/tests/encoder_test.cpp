// The kernels of encoders on every ISA: products against a scalar twin bit by bit, the others against double precision.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels.h"

using namespace inferd;

namespace {

std::mt19937 rng(1);

float normal() { return std::normal_distribution<float>()(rng); }

std::vector<float> normals(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = normal();
    return values;
}

[[noreturn]] void fail(const char* what, const char* isa, int size, int at) {
    std::printf("FAILED: %s, %s, size %d, at %d\n", what, isa, size, at);
    std::exit(1);
}

uint16_t bf16_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float float_of(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

double activated(RowActivation act, double x) {
    switch (act) {
        case RowActivation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
        case RowActivation::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
        case RowActivation::relu: return std::max(x, 0.0);
        default: return x;
    }
}

// What each table writes into a row that starts off alignment; tables with a true fma must agree in every bit.
using Tables = std::vector<const KernelTable*>;
template <class Run, class Check>
void on_all(const Tables& tables, size_t count, const char* what, Run run, Check check) {
    std::vector<float> first;
    for (const KernelTable* table : tables) {
        std::vector<float> memory(count + 1, NAN);
        run(*table, memory.data() + 1);
        const std::vector<float> got(memory.begin() + 1, memory.end());
        check(*table, got);
        if (table == &baseline::kTable) continue;
        if (first.empty()) first = got;
        if (std::memcmp(first.data(), got.data(), count * sizeof(float))) fail(what, table->name, (int)count, -1);
    }
}

void check_norms(const Tables& tables, int n) {
    const std::vector<float> x = normals(n), weight = normals(n), bias = normals(n);
    double mean = 0, variance = 0;
    for (float value : x) mean += value / (double)n;
    for (float value : x) variance += (value - mean) * (value - mean) / n;
    on_all(tables, n, "layer_norm differs between ISAs",
           [&](const KernelTable& table, float* row) {
               std::copy(x.begin(), x.end(), row);
               table.encoder.layer_norm(row, weight.data(), bias.data(), 1e-5f, n);
           },
           [&](const KernelTable& table, const std::vector<float>& got) {
               for (int i = 0; i < n; i++) {
                   const double want = (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + bias[i];
                   if (std::abs(got[i] - want) > 2e-5) fail("layer_norm", table.name, n, i);
               }
           });
}

void check_activations(const Tables& tables, int n) {
    std::vector<float> x(n), bias = normals(n);
    for (int i = 0; i < n; i++) x[i] = normal() * 4;
    x[0] = 0, bias[0] = 0, x[1] = 60, x[2] = -60;
    for (int kind = 0; kind < 4; kind++) {
        const auto act = (RowActivation)kind;
        on_all(tables, n, "an activation differs between ISAs",
               [&](const KernelTable& table, float* row) {
                   std::copy(x.begin(), x.end(), row);
                   table.encoder.add_and_activate(act, row, bias.data(), n);
               },
               [&](const KernelTable& table, const std::vector<float>& got) {
                   for (int i = 0; i < n; i++) {
                       const double sum = x[i] + bias[i], error = std::abs(got[i] - activated(act, sum));
                       if (!(error <= 1e-6 * std::max(1.0, std::abs(sum)))) fail("add_and_activate", table.name, kind, i);
                   }
               });
    }
}

void check_rounding(const Tables& tables, int n) {
    const std::vector<float> x = normals(n);
    for (const KernelTable* table : tables) {
        std::vector<uint16_t> got(n + 1);
        table->encoder.round_to_bf16(x.data(), n, got.data() + 1);
        for (int i = 0; i < n; i++)
            if (got[i + 1] != bf16_of(x[i])) fail("round_to_bf16", table->name, n, i);
    }
}

// The bit rule, one pair of k at a time.
float product(const uint16_t* w, const uint16_t* x, int k) {
    float acc = 0;
    for (int i = 0; i < k; i += 2)
        acc = std::fmaf(float_of(x[i]), float_of(w[i]), std::fmaf(float_of(x[i + 1]), float_of(w[i + 1]), acc));
    return acc;
}

void check_products(const Tables& tables, int rows, int n, int k) {
    std::vector<uint16_t> w((size_t)n * k), x((size_t)rows * (k + 1) + 1);
    for (uint16_t& value : w) value = bf16_of(normal());
    for (uint16_t& value : x) value = bf16_of(normal());
    std::vector<uint16_t> memory((size_t)n * k + 32);
    auto* packed = (uint16_t*)(((uintptr_t)memory.data() + 63) / 64 * 64);
    pack_pairs(w.data(), n, k, 0, n / kPanelColumns, packed);
    const PackedMatrix matrix = make_packed(30, n, k, (const uint8_t*)packed);
    const int ldx = k + 1, ldout = n + 3;  // rows off alignment
    on_all(tables, (size_t)rows * ldout, "gemm_pairs differs between ISAs",
           [&](const KernelTable& table, float* out) {
               for (int half = 0; half < 2; half++) {  // in two runs of panels
                   const int panels = n / kPanelColumns, middle = panels / 2;
                   table.encoder.gemm_pairs(matrix, x.data() + 1, ldx, rows, half ? middle : 0, half ? panels : middle, out, ldout);
               }
           },
           [&](const KernelTable& table, const std::vector<float>& got) {
               for (int r = 0; r < rows; r++)
                   for (int c = 0; c < ldout; c++) {
                       const float value = got[(size_t)r * ldout + c];
                       if (c >= n) {
                           if (!std::isnan(value)) fail("gemm_pairs wrote past its columns", table.name, n, c);
                           continue;
                       }
                       const float want = product(&w[(size_t)c * k], &x[1 + (size_t)r * ldx], k);
                       const bool ok = &table == &baseline::kTable ? std::abs(value - want) < 1e-3f : value == want;
                       if (!ok) fail("gemm_pairs", table.name, k, r * ldout + c);
                   }
           });
}

}  // namespace

int main() {
    Tables tables{&baseline::kTable};
    if (__builtin_cpu_supports("avx2")) tables.push_back(&avx2::kTable);
    if (__builtin_cpu_supports("avx512vnni")) tables.push_back(&avx512::kTable);
    if (__builtin_cpu_supports("avx512bf16")) tables.push_back(&avx512::kBf16Table);
    for (int n = 16; n <= 160; n += 16) {
        check_norms(tables, n);
        check_activations(tables, n);
        check_rounding(tables, n);
    }
    for (int rows = 1; rows <= 25; rows++)
        for (int k : {2, 32, 66}) check_products(tables, rows, rows % 2 ? 32 : 96, k);
    std::printf("encoder kernels: %zu ISAs\n", tables.size());
}
