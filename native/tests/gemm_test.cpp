// Every kernel table against a scalar twin written from the bit rule of gemm.h: quantization, integer and float products,
// for 1 to 40 rows, ragged columns, unaligned rows and extreme values. Bits must be equal.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <vector>

#include "dequant.h"
#include "kernels.h"

namespace {

using namespace inferd;

constexpr int kMaxRows = 40;
constexpr int kTypes[] = {2, 3, 6, 7, 8, 10, 11, 12, 13, 14};
int failures = 0;

void check(bool ok, const char* what, const char* isa, int type, int k, int rows) {
    if (ok) return;
    if (failures++ < 20) std::printf("FAILED %s: %s type %d k %d rows %d\n", what, isa, type, k, rows);
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, 4) == 0 || (std::isnan(a) && std::isnan(b)); }

struct Aligned {
    explicit Aligned(size_t bytes) : size(bytes), data(static_cast<uint8_t*>(::operator new(bytes, std::align_val_t(64)))) {}
    ~Aligned() { ::operator delete(data, std::align_val_t(64)); }
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    size_t size;
    uint8_t* data;
};

// ---- the rule -------------------------------------------------------------------------------------------------------

struct TwinRow {
    std::vector<int> q;        // (k,)
    std::vector<int> e;        // (k / 16,)
    std::vector<float> scale;  // (groups,)
};

TwinRow twin_quantize(const float* x, int k) {
    TwinRow row{std::vector<int>(k), std::vector<int>(k / 16), {}};
    for (int first = 0; first < k; first += 128) {
        const int end = std::min(first + 128, k);
        auto value = [&](int i) { return std::isfinite(x[i]) ? x[i] : 0.0f; };
        float amax = 0;
        for (int i = first; i < end; i++) amax = std::max(amax, std::fabs(value(i)));
        if (amax < 1e-30f) {
            row.scale.push_back(0);
            continue;
        }
        row.scale.push_back(amax / 127.0f);
        for (int slice = first / 16; slice < end / 16; slice++) {
            double largest = 0;
            for (int i = slice * 16; i < slice * 16 + 16; i++) largest = std::max(largest, (double)std::fabs(value(i)));
            int e = 0;
            while (e < kMaxExponent && largest * std::ldexp(1.0, e + 1) <= amax) e++;
            if (slice % 2) e = std::min(e, row.e[slice - 1] + kMaxLeft);
            row.e[slice] = e;
            const float factor = 127.0f / amax * std::ldexp(1.0f, e);
            for (int i = slice * 16; i < slice * 16 + 16; i++) row.q[i] = (int)std::nearbyint(value(i) * factor);
        }
    }
    return row;
}

// What the packed layout says of column c of one K-block.
struct TwinBlock {
    float scale[2], min[2];  // per sub-block
    int weight[32];          // zero subtracted
};

float half_at(const uint8_t* p) {
    const int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float magnitude = exponent ? std::ldexp(1024.0f + (float)fraction, exponent - 25) : std::ldexp((float)fraction, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

TwinBlock twin_block(const PackedMatrix& w, int column, int block) {
    const Format& f = format_of(w.type);
    const size_t header = f.super ? 64 * (1 + f.has_min) : 0;
    const size_t scales = f.super && f.sub == 32 ? 64 : 64 * (1 + f.has_min), size = scales + f.bits * 128;
    const uint8_t* super = w.data + column / 32 * w.panel_bytes + block / 8 * (header + 8 * size);
    const uint8_t *at = super + header + block % 8 * size, *quants = at + scales;
    const int c = column % 32;
    TwinBlock b{};
    for (int s = 0; s < 32 / f.sub; s++) {
        if (!f.super) {
            b.scale[s] = half_at(at + 2 * c), b.min[s] = f.has_min ? half_at(at + 64 + 2 * c) : 0;
            continue;
        }
        const int small = f.sub == 16 && !f.has_min ? (int8_t)at[32 * s + c] : at[32 * s + c];
        b.scale[s] = half_at(super + 2 * c) * (float)small;
        if (f.has_min) b.min[s] = -half_at(super + 64 + 2 * c) * (float)at[(f.sub == 16 ? 64 + 32 * s : 32) + c];
    }
    for (int k = 0; k < 32; k++) {
        const int quad = k / 4;
        const int u = f.bits == 8 ? quants[quad * 128 + 4 * c + k % 4]
                                  : quants[(quad / 2 * 2 + c / 16) * 64 + c % 16 * 4 + k % 4] >> (quad % 2 * 4) & 15;
        b.weight[k] = u - f.zero;
    }
    return b;
}

float multiply_add(bool fused, float a, float b, float c) {
    const float product = a * b;
    return fused ? std::fma(a, b, c) : product + c;
}

float twin_product(const PackedMatrix& w, int column, const TwinRow& row, bool fused, float acc) {
    const Format& f = format_of(w.type);
    for (int group = 0; group * 128 < w.k; group++) {
        float part = 0;
        for (int block = group * 4; block < std::min(group * 4 + 4, w.k / 32); block++) {
            const TwinBlock b = twin_block(w, column, block);
            int64_t dot[2] = {}, sum[2] = {};
            for (int k = 0; k < 32; k++) dot[k / 16] += b.weight[k] * row.q[block * 32 + k], sum[k / 16] += row.q[block * 32 + k];
            const int e[2] = {row.e[2 * block], row.e[2 * block + 1]}, c = e[1] - e[0];
            const float sums[2] = {std::ldexp((float)sum[0], -e[0]), std::ldexp((float)sum[1], -e[1])};
            if (f.sub == 32) {
                const int64_t first = c >= 0 ? dot[0] * (1 << c) : (dot[0] + (1 << (-c - 1))) >> -c;
                part = multiply_add(fused, (float)(first + dot[1]), std::ldexp(b.scale[0], -e[1]), part);
                if (f.has_min) part = multiply_add(fused, b.min[0], sums[0] + sums[1], part);
            } else {
                for (int s = 0; s < 2; s++) {
                    part = multiply_add(fused, (float)dot[s], std::ldexp(b.scale[s], -e[s]), part);
                    if (f.has_min) part = multiply_add(fused, b.min[s], sums[s], part);
                }
            }
        }
        acc = multiply_add(fused, part, row.scale[group], acc);
    }
    return acc;
}

// ---- inputs ---------------------------------------------------------------------------------------------------------

enum Pattern { ordinary, outliers, largest_values, not_finite, kNumPatterns };

// (rows, ldx) with x one float past an aligned address
std::vector<float> make_rows(Pattern pattern, int k, int ldx, std::mt19937& random) {
    std::vector<float> x((size_t)kMaxRows * ldx + 1);
    std::normal_distribution<float> normal;
    for (int m = 0; m < kMaxRows; m++)
        for (int i = 0; i < k; i++) {
            float v = normal(random);
            if (pattern == outliers && random() % 24 == 0) v *= std::ldexp(1.0f, (int)(random() % 16));
            if (pattern == largest_values) v = m % 3 == 2 ? (i % 32 == 0 ? 127.0f : 1.0f) : m % 3 ? -127.0f : i % 2 ? 127.0f : -127.0f;
            if (pattern == not_finite && random() % 40 == 0)
                v = random() % 2 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
            if (m % 10 == 7) v = i / 128 % 2 ? 0 : v * 1e-36f;  // groups that count as zero
            if (m % 10 == 3 && i / 16 % 3 == 1) v = -0.0f;  // slices without a value, whose sign must not matter
            x[(size_t)m * ldx + i + 1] = v;
        }
    return x;
}

size_t row_bytes_of(int type, int k) {
    static const int kFlat[] = {0, 0, 18, 20, 0, 0, 22, 24, 34}, kSuper[] = {84, 110, 144, 176, 210};
    return type < 10 ? (size_t)k / 32 * kFlat[type] : (size_t)k / 256 * kSuper[type - 10];
}

std::vector<uint8_t> make_file_rows(size_t bytes, std::mt19937& random) {
    std::vector<uint8_t> file(bytes);
    for (uint8_t& b : file) {
        b = (uint8_t)random();
        if ((b & 0x78) == 0x78 || (b & 0x7C) == 0) b ^= 0x20;  // as the high byte of an fp16: finite and of a sane size
    }
    return file;
}

// ---- tests ----------------------------------------------------------------------------------------------------------

struct Quantized {
    Quantized(const KernelTable& table, const float* x, int ldx, int rows, int k)
        : q((size_t)rows * k), floats((size_t)rows * k / 16 * 3), ints(floats.size()), view(make_quant_rows(rows, k, q.data(), floats.data(), ints.data())) {
        table.quantize_rows(x, ldx, 0, rows / 3, view);
        table.quantize_rows(x, ldx, rows / 3, rows, view);
    }
    std::vector<int8_t> q;
    std::vector<float> floats;
    std::vector<int32_t> ints;
    QuantRows view;
};

void test_quantize(const KernelTable& table, const QuantRows& view, const std::vector<TwinRow>& twin) {
    bool ok = true;
    for (int t = 0; t < num_tiles(view.num_rows); t++) {
        const int start = tile_start(view.num_rows, t), mr = tile_start(view.num_rows, t + 1) - start;
        for (int r = 0; r < mr; r++) {
            const TwinRow& row = twin[start + r];
            for (int k = 0; k < view.k; k++) ok &= view.q[(size_t)start * view.k + k / 4 * mr * 4 + r * 4 + k % 4] == row.q[k];
            for (int g = 0; g < num_groups(view.k); g++)
                ok &= same_bits(view.scale[(size_t)start * num_groups(view.k) + g * mr + r], row.scale[g]);
            for (int block = 0; block < view.k / 32; block++) {
                const size_t at = (size_t)start * (view.k / 32) + block * mr;
                const float* factors = view.factors + at * 5 + r;
                const int32_t* offsets = view.offsets + at * 4 + r;
                int sum[2] = {};
                for (int k = 0; k < 32; k++) sum[k / 16] += row.q[block * 32 + k];
                const int *e = &row.e[2 * block], c = e[1] - e[0];
                const float scaled[2] = {std::ldexp((float)sum[0], -e[0]), std::ldexp((float)sum[1], -e[1])};
                ok &= factors[0] == std::ldexp(1.5f, 23 - e[0]) && factors[mr] == std::ldexp(1.5f, 23 - e[1]);
                ok &= factors[2 * mr] == scaled[0] && factors[3 * mr] == scaled[1] && factors[4 * mr] == scaled[0] + scaled[1];
                ok &= offsets[0] == -sum[0] && offsets[mr] == -sum[1];
                ok &= offsets[2 * mr] == kMaxLeft - c && offsets[3 * mr] == (c < 0 ? 1 << (-c - 1) : 0);
            }
        }
    }
    check(ok, "quantize", table.name, -1, view.k, view.num_rows);
}

// want: (kMaxRows, n) from 0, and added to 0.5
void compare(const KernelTable& table, const PackedMatrix& w, int rows, const std::vector<float>& want, const std::vector<float>& added, const auto& product) {
    const int ldout = w.n + 3, middle = w.num_panels / 2;
    std::vector<float> out((size_t)rows * ldout, 0.5f);
    product(0, middle, out.data(), ldout, false);
    product(middle, w.num_panels, out.data(), ldout, false);
    bool ok = true, padding = true;
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < ldout; n++) {
            if (n < w.n) ok &= same_bits(out[(size_t)m * ldout + n], want[(size_t)m * w.n + n]);
            else padding &= out[(size_t)m * ldout + n] == 0.5f;
        }
    check(ok, "product", table.name, w.type, w.k, rows);
    check(padding, "columns beyond n untouched", table.name, w.type, w.k, rows);
    std::vector<float> sum((size_t)rows * ldout, 0.5f);
    product(0, w.num_panels, sum.data(), ldout, true);
    ok = true;
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < w.n; n++) ok &= same_bits(sum[(size_t)m * ldout + n], added[(size_t)m * w.n + n]);
    check(ok, "accumulate", table.name, w.type, w.k, rows);
}

void test_quant(const std::vector<const KernelTable*>& tables, int type, int k, Pattern pattern, std::mt19937& random) {
    const int n = 69, ldx = k + 5;
    const Format& f = format_of(type);
    const std::vector<uint8_t> file = make_file_rows(row_bytes_of(type, k) * n, random);
    Aligned memory(packed_bytes(type, n, k));
    const PackedMatrix w = make_packed(type, n, k, memory.data);
    pack(type, file.data(), row_bytes_of(type, k), n, k, 0, w.num_panels, memory.data);
    std::vector<float> exact(k);
    for (int column = 0; column < n; column += 17) {
        dequantize_row(type, file.data() + column * row_bytes_of(type, k), k, exact.data());
        bool ok = true;
        for (int i = 0; i < k; i++) {
            const TwinBlock b = twin_block(w, column, i / 32);
            const int s = i % 32 / f.sub;
            const double value = (double)b.scale[s] * b.weight[i % 32] + b.min[s], size = std::fabs((double)b.scale[s] * b.weight[i % 32]) + std::fabs(b.min[s]);
            ok &= std::fabs(value - exact[i]) <= 1e-6 * size;
        }
        check(ok, "pack", "all", type, k, column);
    }
    if (pattern == largest_values) {  // the quants, not the scales, of every block to their largest
        const size_t header = f.super ? 64 * (1 + f.has_min) : 0, scales = f.super && f.sub == 32 ? 64 : 64 * (1 + f.has_min);
        for (int panel = 0; panel < w.num_panels; panel++) {
            uint8_t* at = memory.data + panel * w.panel_bytes;
            for (int block = 0; block < k / 32; block++) {
                if (f.super && block % 8 == 0) at += header;
                std::memset(at + scales, f.bits == 4 ? f.max_value * 17 : f.max_value, f.bits * 128);
                at += scales + f.bits * 128;
            }
        }
    }
    const std::vector<float> x = make_rows(pattern, k, ldx, random);
    std::vector<TwinRow> twin;
    for (int m = 0; m < kMaxRows; m++) twin.push_back(twin_quantize(x.data() + 1 + (size_t)m * ldx, k));
    std::vector<float> want[2], added[2];
    for (int fused = 0; fused < 2; fused++)
        for (int m = 0; m < kMaxRows; m++)
            for (int c = 0; c < n; c++) {
                want[fused].push_back(twin_product(w, c, twin[m], fused, 0));
                added[fused].push_back(twin_product(w, c, twin[m], fused, 0.5f));
            }
    for (const KernelTable* table : tables)
        for (int rows = 1; rows <= kMaxRows; rows++) {
            const Quantized a(*table, x.data() + 1, ldx, rows, k);
            test_quantize(*table, a.view, twin);
            const int fused = std::strcmp(table->name, "baseline") != 0;
            compare(*table, w, rows, want[fused], added[fused], [&](int begin, int end, float* out, int ldout, bool accumulate) {
                table->gemm_quant(w, a.view, begin, end, out, ldout, accumulate);
            });
        }
}

void test_float(const std::vector<const KernelTable*>& tables, int type, int k, std::mt19937& random) {
    const int n = 69, ldx = k + 5, size = type == 0 ? 4 : 2;
    std::vector<uint8_t> file((size_t)n * k * size);
    std::normal_distribution<float> normal;
    for (int i = 0; i < n * k; i++) {
        const float v = normal(random);
        uint32_t bits;
        std::memcpy(&bits, &v, 4);
        const uint16_t half = type == 30 ? (uint16_t)(bits >> 16) : (uint16_t)(random() & 0xBBFF);
        if (type == 0) std::memcpy(&file[(size_t)i * 4], &v, 4);
        else std::memcpy(&file[(size_t)i * 2], &half, 2);
    }
    Aligned memory(packed_bytes(type, n, k));
    const PackedMatrix w = make_packed(type, n, k, memory.data);
    pack(type, file.data(), (size_t)k * size, n, k, 0, w.num_panels, memory.data);
    const std::vector<float> x = make_rows(not_finite, k, ldx, random);
    std::vector<float> row(k), want[2], added[2];
    for (int fused = 0; fused < 2; fused++)
        for (int m = 0; m < kMaxRows; m++)
            for (int c = 0; c < n; c++) {
                dequantize_row(type, file.data() + (size_t)c * k * size, k, row.data());
                float acc = 0;
                for (int i = 0; i < k; i++) acc = multiply_add(fused, x[1 + (size_t)m * ldx + i], row[i], acc);
                want[fused].push_back(acc);
                added[fused].push_back(0.5f + acc);
            }
    for (const KernelTable* table : tables)
        for (int rows = 1; rows <= kMaxRows; rows++) {
            const int fused = std::strcmp(table->name, "baseline") != 0;
            compare(*table, w, rows, want[fused], added[fused], [&](int begin, int end, float* out, int ldout, bool accumulate) {
                table->gemm_float(w, x.data() + 1, ldx, rows, begin, end, out, ldout, accumulate);
            });
        }
}

}  // namespace

int main() {
    std::vector<const KernelTable*> tables{&baseline::kTable};
    if (std::strstr(available_isas(), "avx2")) tables.push_back(&avx2::kTable);
    if (std::strstr(available_isas(), "avx512")) tables.push_back(&avx512::kTable);
    std::mt19937 random(1);
    for (int type : kTypes)
        for (int pattern = 0; pattern < kNumPatterns; pattern++) {
            static const int kSizes[] = {32, 96, 160, 288}, kSuperSizes[] = {256, 512, 256, 768};
            test_quant(tables, type, (type < 10 ? kSizes : kSuperSizes)[pattern], (Pattern)pattern, random);
        }
    test_quant(tables, 3, 32 * 131, outliers, random);  // several chunks of K
    test_quant(tables, 14, 256 * 17, outliers, random);
    for (int type : {0, 1, 30})
        for (int k : {32, 96}) test_float(tables, type, k, random);
    std::printf("%s: %d failures\n", available_isas(), failures);
    return failures != 0;
}
