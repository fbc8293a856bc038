// attend(), merge() and store() of every ISA and both types of KV cache against double precision, and their bits against each other.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels.h"

using namespace inferd;

namespace {

std::mt19937 rng(1);

float normal() { return std::normal_distribution<float>()(rng); }
int below(int n) { return (int)(rng() % n); }

[[noreturn]] void fail(const char* what, const char* isa, int dim, int size, int row) {
    std::printf("FAILED: %s, %s, head_dim %d, block_size %d, row %d\n", what, isa, dim, size, row);
    std::exit(1);
}

float rounded_to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u;
    std::memcpy(&x, &bits, 4);
    return x;
}

// What a cache of that type keeps of one token's head, (dim,).
std::vector<float> kept(KvType type, const float* x, int dim) {
    std::vector<float> out(x, x + dim);
    float amax = 0;
    for (float v : out) amax = std::max(amax, std::fabs(v));
    for (float& v : out) v = type == KvType::bf16 ? rounded_to_bf16(v) : std::nearbyint(v * (127 / amax)) * (amax / 127);
    return out;
}

// One sequence of num_keys tokens of one kv head in a shuffled table; whatever no token wrote is NaN.
struct Cache {
    Cache(const KvKernels& kernels, KvType type, const std::vector<float>& k, const std::vector<float>& v, int num_keys,
          int dim, int size)
        : num_blocks((num_keys + size - 1) / size), head(kv_head_bytes(type, size, dim)),
          blocks((size_t)(num_blocks + 3) * 2 * head, 0xFF), order(num_blocks + 3) {
        std::iota(order.begin(), order.end(), 0);
        std::shuffle(order.begin(), order.end(), rng);
        for (int t = 0; t < num_keys; t++) {
            uint8_t* block = blocks.data() + order[t / size] * 2 * head;
            kernels.store(&k[(size_t)t * dim], &v[(size_t)t * dim], dim, size, t % size, block, block + head);
        }
        view = {blocks.data(), order.data(), 2 * head, 0, head, size, dim};
    }
    int num_blocks;
    ptrdiff_t head;
    std::vector<uint8_t> blocks;
    std::vector<int32_t> order;
    KvView view;
};

struct Case {
    KvType type;
    int dim, size, num_keys, num_rows;
    float soft_cap;
    std::vector<float> k, v, q;  // (num_keys, dim) twice, (num_rows, dim)
    std::vector<int> begin, end;
};

Case random_case() {
    constexpr int kDims[] = {16, 32, 48, 64, 80, 96, 128, 256}, kSizes[] = {16, 32, 64, 256};
    Case c{(KvType)below(2), kDims[below(8)], kSizes[below(4)], 1 + below(700), 1 + below(kMaxAttendRows),
           below(3) ? 0.0f : 5.0f, {}, {}, {}, {}, {}};
    for (auto* values : {&c.k, &c.v}) {
        values->resize((size_t)c.num_keys * c.dim);
        for (float& x : *values) x = normal();
    }
    c.q.resize((size_t)c.num_rows * c.dim);
    for (float& x : c.q) x = normal() * 2 / std::sqrt((float)c.dim);
    const int window = below(2) ? 0 : 1 + below(300);
    for (int r = 0; r < c.num_rows; r++) {  // ascending, the last row sees the last key
        c.end.push_back(r + 1 == c.num_rows ? c.num_keys : 1 + below(c.num_keys));
        std::sort(c.end.begin(), c.end.end());
    }
    for (int end : c.end) c.begin.push_back(window ? std::max(0, end - window) : 0);
    return c;
}

// (num_rows, dim) of rows [first, first + count), each split merged in order
std::vector<float> attention(const KernelTable& table, const Case& c, int first, int count) {
    const KvKernels& kernels = table.kv[(int)c.type];
    const Cache cache(kernels, c.type, c.k, c.v, c.num_keys, c.dim, c.size);
    std::vector<float> part(kMaxAttendRows * (c.dim + 2)), total(part.size(), 0.0f);
    auto view = [](std::vector<float>& x) { return Partial{x.data(), x.data() + kMaxAttendRows, x.data() + 2 * kMaxAttendRows}; };
    const AttendRows rows{count, &c.q[(size_t)first * c.dim], &c.begin[first], &c.end[first], c.soft_cap};
    for (int from = 0; from < c.num_keys; from += kAttendSplit) {
        kernels.attend(cache.view, rows, from, from + kAttendSplit, view(part));
        table.merge(view(total), view(part), count, c.dim);
    }
    std::vector<float> out(total.begin() + 2 * kMaxAttendRows, total.begin() + 2 * kMaxAttendRows + count * c.dim);
    for (int r = 0; r < count; r++)
        for (int d = 0; d < c.dim; d++) out[r * c.dim + d] /= total[kMaxAttendRows + r];
    return out;
}

// The same in double precision on the q, k and v that are kept. int8 caches take q as it is, to 16 bits.
std::vector<double> exact(const Case& c, int row) {
    std::vector<double> p, out(c.dim, 0.0);
    const float* given = &c.q[(size_t)row * c.dim];
    const std::vector<float> q = c.type == KvType::bf16 ? kept(c.type, given, c.dim) : std::vector<float>(given, given + c.dim);
    double sum = 0;
    for (int t = c.begin[row]; t < c.end[row]; t++) {
        const std::vector<float> k = kept(c.type, &c.k[(size_t)t * c.dim], c.dim);
        double score = 0;
        for (int d = 0; d < c.dim; d++) score += (double)q[d] * k[d];
        if (c.soft_cap != 0) score = c.soft_cap * std::tanh(score / c.soft_cap);
        p.push_back(std::exp(score));
        sum += p.back();
    }
    for (int t = c.begin[row]; t < c.end[row]; t++) {
        const std::vector<float> v = kept(c.type, &c.v[(size_t)t * c.dim], c.dim);
        for (int d = 0; d < c.dim; d++) out[d] += p[t - c.begin[row]] / sum * v[d];
    }
    return out;
}

void check(const KernelTable& table, const Case& c, const std::vector<float>& got) {
    // p has 8 bits in bf16 (half a unit in the last place of each, and values of order 1), 16 beside int8
    const double most = c.type == KvType::bf16 ? 0.01 : 0.0005;
    for (int r = 0; r < c.num_rows; r++) {
        const std::vector<double> want = exact(c, r);
        for (int d = 0; d < c.dim; d++)
            if (!(std::fabs(got[r * c.dim + d] - want[d]) < most)) fail("far from double precision", table.name, c.dim, c.size, r);
    }
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

int main() {
    std::vector<const KernelTable*> exact_isas;  // all with a true fma
    if (__builtin_cpu_supports("avx2")) exact_isas.push_back(&avx2::kTable);
    if (__builtin_cpu_supports("avx512vnni")) exact_isas.push_back(&avx512::kTable);
    if (__builtin_cpu_supports("avx512bf16")) exact_isas.push_back(&avx512::kBf16Table);
    for (int trial = 0; trial < 300; trial++) {
        const Case c = random_case();
        check(baseline::kTable, c, attention(baseline::kTable, c, 0, c.num_rows));
        std::vector<float> first;
        for (const KernelTable* table : exact_isas) {
            const std::vector<float> got = attention(*table, c, 0, c.num_rows);
            check(*table, c, got);
            if (first.empty()) first = got;
            if (!same(first, got)) fail("bits differ between ISAs", table->name, c.dim, c.size, 0);
            const int row = below(c.num_rows);
            const std::vector<float> alone = attention(*table, c, row, 1);
            if (!same(alone, {got.begin() + row * c.dim, got.begin() + (row + 1) * c.dim}))
                fail("a row's bits depend on its tile", table->name, c.dim, c.size, row);
        }
    }
    std::printf("attention: %zu ISAs with equal bits, baseline close\n", exact_isas.size());
}
