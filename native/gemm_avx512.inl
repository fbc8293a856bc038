// The tile for AVX-512 VNNI. Included by gemm.inl.

// The dot-product instruction as asm: from intrinsics GCC 12 spills the 24 accumulators and halves the speed.
static inline __attribute__((always_inline)) void dot4(__m512i& acc, __m512i w, __m512i a) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
}

static inline __attribute__((always_inline)) __m512i broadcast4(const int8_t* a) {
    int32_t four;
    __builtin_memcpy(&four, a, 4);
    return _mm512_set1_epi32(four);
}

template <class P>
static inline __attribute__((always_inline)) __m512i zero_offset(const int32_t* neg_sum) {
    return _mm512_slli_epi32(_mm512_set1_epi32(*neg_sum), P::zero ? __builtin_ctz(P::zero ? P::zero : 1) : 0);
}

// What the accumulator of slice 0 of 2 starts from.
template <class P>
static inline __attribute__((always_inline)) __m512i first_start(const int32_t* rounding, const int32_t* neg_sum) {
    const __m512i start = _mm512_set1_epi32(*rounding);
    return P::zero == 0 ? start : _mm512_add_epi32(start, zero_offset<P>(neg_sum));
}

// What the last slice adds: the bits of 1.5 * 2^23 * 2^-e plus an integer below 2^22 are the bits of their sum * 2^-e.
template <class P>
static inline __attribute__((always_inline)) __m512i slice_start(const float* magic, const int32_t* neg_sum) {
    if constexpr (!P::magic) return zero_offset<P>(neg_sum);
    const __m512i start = _mm512_castps_si512(_mm512_set1_ps(*magic));
    return P::zero == 0 ? start : _mm512_add_epi32(start, zero_offset<P>(neg_sum));
}

// float(dot) * 2^-e
template <class P>
static inline __attribute__((always_inline)) V16 scaled(__m512i dot, __m512 magic) {
    if constexpr (P::magic) return {_mm512_sub_ps(_mm512_castsi512_ps(dot), magic)};
    const __m512 exponent = _mm512_sub_ps(_mm512_getexp_ps(magic), _mm512_set1_ps(23));
    return {_mm512_scalef_ps(_mm512_cvtepi32_ps(dot), exponent)};
}

// 16 columns (half h) of one quad of k
template <class P>
static inline __attribute__((always_inline)) __m512i load_quad(const uint8_t* quants, int quad, int h) {
    if constexpr (P::bits == 8) return _mm512_load_si512(quants + quad * 128 + h * 64);
    __m512i x = _mm512_load_si512(quants + quad / 2 * 128 + h * 64);
    if (quad % 2) x = _mm512_srli_epi16(x, 4);
    return _mm512_and_si512(x, _mm512_set1_epi8(15));
}

// Up to kDirectRows rows: these products wait for memory.
template <class P, int MR>
static void tile_of_few(const uint8_t* w, TileRows rows, int num_blocks, float (*acc)[32]) {
    constexpr int kSubs = 32 / P::sub, kSlices = P::sub / 16;
    constexpr int kChains = MR <= 3 ? 2 : 1;  // two chains per accumulator hide the latency of the dot product
    const int8_t* a = rows.q;
    const float* f = rows.factors;
    const int32_t* o = rows.offsets;
    for (int first = 0; first < num_blocks; first += kGroup / 32, rows.scale += MR) {
        const uint8_t *header = w + first / 8 * P::chunk_bytes, *block = header + P::header_bytes + first % 8 * P::block_bytes;
        const int count = num_blocks - first < kGroup / 32 ? num_blocks - first : kGroup / 32;
        V16 part[MR][2];
#pragma GCC unroll 12
        for (int r = 0; r < MR; r++) part[r][0] = part[r][1] = set1(0);
        for (int b = 0; b < count; b++, block += P::block_bytes, a += 32 * MR, f += 5 * MR, o += 4 * MR) {
            const uint8_t* quants = block + P::scale_bytes;
            for (int line = 0; line < P::block_bytes; line += 64) _mm_prefetch((const char*)block + 2048 + line, _MM_HINT_T0);
#pragma GCC unroll 2
            for (int s = 0; s < kSubs; s++) {
                const float *magic = f + (kSlices == 2 ? 1 : s) * MR, *sum = f + (kSlices == 2 ? 4 : 2 + s) * MR;
                const int32_t* neg_sum = o + (kSlices == 2 ? 1 : s) * MR;
                __m512i dot[MR][2][kChains];
#pragma GCC unroll 12
                for (int r = 0; r < MR; r++) {
                    dot[r][0][0] = dot[r][1][0] = kSlices == 2 ? first_start<P>(o + 3 * MR + r, o + r) : slice_start<P>(magic + r, neg_sum + r);
                    if constexpr (kChains == 2)
                        dot[r][0][1] = dot[r][1][1] = kSlices == 2 ? slice_start<P>(magic + r, neg_sum + r) : _mm512_setzero_si512();
                }
#pragma GCC unroll 2
                for (int slice = 0; slice < kSlices; slice++) {
#pragma GCC unroll 12
                    for (int quad = 0; quad < 4; quad++) {
                        const int at = (s * kSlices + slice) * 4 + quad, chain = (kSlices == 2 ? slice : quad) % kChains;
                        const __m512i w0 = load_quad<P>(quants, at, 0), w1 = load_quad<P>(quants, at, 1);
#pragma GCC unroll 12
                        for (int r = 0; r < MR; r++) {
                            const __m512i x = broadcast4(a + at * MR * 4 + r * 4);
                            dot4(dot[r][0][chain], w0, x);
                            dot4(dot[r][1][chain], w1, x);
                        }
                    }
                    if (kSlices == 2 && slice == 0) {
#pragma GCC unroll 12
                        for (int r = 0; r < MR; r++) {
                            const __m512i right = _mm512_set1_epi32(o[2 * MR + r]);
#pragma GCC unroll 2
                            for (int h = 0; h < 2; h++) {
                                dot[r][h][0] = _mm512_srav_epi32(_mm512_slli_epi32(dot[r][h][0], kMaxLeft), right);
                                if constexpr (kChains == 1) dot[r][h][0] = _mm512_add_epi32(dot[r][h][0], slice_start<P>(magic + r, neg_sum + r));
                            }
                        }
                    }
                }
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    const V16 w_scale = P::scale(header, block, s, h), w_min = P::has_min ? P::min(header, block, s, h) : set1(0);
#pragma GCC unroll 12
                    for (int r = 0; r < MR; r++) {
                        __m512i total = dot[r][h][0];
                        if constexpr (kChains == 2) total = _mm512_add_epi32(total, dot[r][h][1]);
                        part[r][h] = fma(scaled<P>(total, _mm512_set1_ps(magic[r])), w_scale, part[r][h]);
                        if constexpr (P::has_min) part[r][h] = fma(w_min, set1(sum[r]), part[r][h]);
                    }
                }
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) store(acc[r] + 16 * h, fma(part[r][h], set1(rows.scale[r]), load(acc[r] + 16 * h)));
    }
}

// fp32 numbers a K-block has in the scratch of a chunk: scale[32 / sub][32], (min[32 / sub][32])
template <class P>
constexpr int kScaleFloats = 32 * (32 / P::sub) * (1 + P::has_min);

#include "gemm_avx512_rows.inl"

// Products of more rows go through chunk_product(). With weights in L2 that is faster from 7 rows on, but it fetches no
// weights ahead in the first panel of a piece, and 8 sequences wait for memory.
constexpr int kDirectRows = 8;

template <class P, int MR>
static void tile(const uint8_t* w, TileRows rows, int num_blocks, float (*acc)[32]) {
    tile_of_few<P, MR>(w, rows, num_blocks, acc);
}

template <class F>
static void write_scales(const uint8_t* data, int num_blocks, float* out) {
    constexpr int kSubs = 32 / F::sub;
    for (int b = 0; b < num_blocks; b++, out += kScaleFloats<F>) {
        const uint8_t *header = data + b / 8 * F::chunk_bytes, *block = header + F::header_bytes + b % 8 * F::block_bytes;
#pragma GCC unroll 2
        for (int s = 0; s < kSubs; s++)
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                store(out + 32 * s + 16 * h, F::scale(header, block, s, h));
                if constexpr (F::has_min) store(out + 32 * (kSubs + s) + 16 * h, F::min(header, block, s, h));
            }
    }
}

// What tile_of_rows() reads of its rows besides q, [4][mr] per K-block, the bits of ints or floats:
//   sub 32   start of slice 0; shift to the right of dot0 << 6; start of slice 1; unit, or with minima sum of both slices
//   sub 16   start of slice 0, of slice 1; units of both, or with minima sums of both
// A start is what the dot begins with, see first_start() and slice_start(). A unit is what scaled() takes: 1.5 * 2^23 * 2^-e,
// which without a zero is the start itself, or -e for types without magic.
template <class F>
static void write_numbers(const TileRows& rows, int mr, int num_blocks, int32_t* out) {
    constexpr bool kTwoSlices = F::sub == 32;
    const __mmask16 mask = (__mmask16)((1 << mr) - 1);
    const float* f = rows.factors;
    const int32_t* o = rows.offsets;
    auto offset = [&](int slot) { return _mm512_maskz_loadu_epi32(mask, o + slot * mr); };
    auto factor = [&](int slot) { return _mm512_maskz_loadu_ps(mask, f + slot * mr); };
    auto put = [&](int slot, __m512i x) { _mm512_mask_storeu_epi32(out + slot * mr, mask, x); };
    constexpr int kZeroShift = F::zero ? __builtin_ctz(F::zero | 1 << 30) : 0;
    auto zero_share = [&](int slice) { return _mm512_slli_epi32(offset(slice), kZeroShift); };
    auto start = [&](__m512i from, int slice) { return F::zero ? _mm512_add_epi32(from, zero_share(slice)) : from; };
    for (int b = 0; b < num_blocks; b++, f += 5 * mr, o += 4 * mr, out += 4 * mr) {
        const __m512i magic0 = _mm512_castps_si512(factor(0)), magic1 = _mm512_castps_si512(factor(1));
        if constexpr (kTwoSlices) {
            put(0, start(offset(3), 0));
            put(1, offset(2));
            put(2, F::magic ? start(magic1, 1) : zero_share(1));
            const __m512 exponent = _mm512_sub_ps(_mm512_getexp_ps(factor(1)), _mm512_set1_ps(23));
            put(3, F::has_min ? _mm512_castps_si512(factor(4)) : F::magic ? magic1 : _mm512_castps_si512(exponent));
        } else {
            put(0, start(magic0, 0));
            put(1, start(magic1, 1));
            put(2, F::has_min ? _mm512_castps_si512(factor(2)) : magic0);
            put(3, F::has_min ? _mm512_castps_si512(factor(3)) : magic1);
        }
    }
}
