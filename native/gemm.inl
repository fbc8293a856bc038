// Tiles of up to 12 rows x 32 columns. Contract and bit rule: gemm.h. Included inside the ISA's namespace after vec.inl.

static inline float half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) {
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    return __builtin_bit_cast(float, sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13);
}

// 16 fp16, u8 or s8 as fp32
static inline V16 load_half(const uint8_t* p) {
#if defined(__AVX512F__)
    return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))};
#elif defined(__AVX2__)
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 16)))};
#else
    V16 r;
    for (int i = 0; i < 16; i++) r.v[i] = half_to_float((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
    return r;
#endif
}
static inline V16 load_u8(const uint8_t* p) {
#if defined(__AVX512F__)
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)))};
#elif defined(__AVX2__)
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p))),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8))))};
#else
    V16 r;
    for (int i = 0; i < 16; i++) r.v[i] = p[i];
    return r;
#endif
}
static inline V16 load_s8(const uint8_t* p) {
#if defined(__AVX512F__)
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
#elif defined(__AVX2__)
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8))))};
#else
    V16 r;
    for (int i = 0; i < 16; i++) r.v[i] = (int8_t)p[i];
    return r;
#endif
}

static void quantize_rows(const float* x, ptrdiff_t ldx, int row_begin, int row_end, const QuantRows& out) {
    const int k = out.k;
    for (int tile = 0, tiles = num_tiles(out.num_rows); tile < tiles; tile++) {
        const int start = tile_start(out.num_rows, tile), end = tile_start(out.num_rows, tile + 1), mr = end - start;
        for (int m = start < row_begin ? row_begin : start; m < (end < row_end ? end : row_end); m++) {
            const float* row = x + (ptrdiff_t)m * ldx;
            for (int g = 0; g < k / 32; g++) {
                float values[32], amax = 0;
                for (int i = 0; i < 32; i++) {
                    float v = row[32 * g + i];
                    v = v - v == 0 ? v : 0;  // inf and NaN count as 0
                    values[i] = v;
                    v = v < 0 ? -v : v;
                    amax = v > amax ? v : amax;
                }
                // below this the reciprocal would overflow; such a group is zero
                const bool zero = amax < 1e-30f;
                const float scale = zero ? 0 : amax / 127.0f, inverse = zero ? 0 : 127.0f / amax;
                int32_t sums[2] = {0, 0};
                int8_t* q = out.q + (ptrdiff_t)start * k + (ptrdiff_t)g * 32 * mr + (m - start) * 4;
                int8_t rounded[32];
                for (int i = 0; i < 32; i++) rounded[i] = (int8_t)__builtin_rintf(values[i] * inverse);
                for (int i = 0; i < 16; i++) sums[0] += rounded[i], sums[1] += rounded[i + 16];
                for (int quad = 0; quad < 8; quad++) __builtin_memcpy(q + quad * 4 * mr, rounded + 4 * quad, 4);
                const ptrdiff_t at32 = (ptrdiff_t)start * (k / 32) + (ptrdiff_t)g * mr + (m - start);
                out.scale[at32] = scale;
                out.neg_sum32[at32] = -(sums[0] + sums[1]);
                out.scaled_sum32[at32] = scale * (float)(sums[0] + sums[1]);
                for (int h = 0; h < 2; h++) {
                    const ptrdiff_t at16 = (ptrdiff_t)start * (k / 16) + (ptrdiff_t)(2 * g + h) * mr + (m - start);
                    out.neg_sum16[at16] = -sums[h];
                    out.scaled_sum16[at16] = scale * (float)sums[h];
                }
            }
        }
    }
}

// One integer format, known at compile time.
template <int Bits, int Zero, bool HasMin, int Sub, bool Super, int MaxValue>
struct Packed {
    static constexpr int bits = Bits, zero = Zero, sub = Sub, max_value = MaxValue;
    static constexpr bool has_min = HasMin, super = Super;
    static constexpr int zero_shift = Zero ? __builtin_ctz(Zero ? Zero : 1) : 0;
    static constexpr int header_bytes = Super ? 64 * (1 + HasMin) : 0;
    static constexpr int scale_bytes = !Super || Sub == 16 ? 64 * (1 + HasMin) : 64;
    static constexpr int quant_bytes = Bits * 128;

    // scale and minimum of 16 columns of a sub-block, exact in fp32
    static inline V16 scale(const uint8_t* header, const uint8_t* scales, int sub_index, int half) {
        if constexpr (!Super) return load_half(scales + 32 * half);
        const uint8_t* small = scales + 32 * sub_index + 16 * half;
        return mul(load_half(header + 32 * half), Sub == 16 && !HasMin ? load_s8(small) : load_u8(small));
    }
    static inline V16 min(const uint8_t* header, const uint8_t* scales, int sub_index, int half) {
        if constexpr (!Super) return load_half(scales + 64 + 32 * half);
        const uint8_t* small = scales + (Sub == 16 ? 64 + 32 * sub_index : 32) + 16 * half;
        return mul(sub_zero(load_half(header + 64 + 32 * half)), load_u8(small));
    }
    static inline V16 sub_zero(V16 x) { return INFERD_ISA_NS::sub(set1(0), x); }
};

// acc += the sub-block's contribution to one row and 16 columns: the bit rule
template <class F>
static inline V16 fold_dot(V16 dot, V16 w_scale, V16 w_min, float a_scale, float a_sum, V16 acc) {
    acc = fma(dot, mul(w_scale, set1(a_scale)), acc);
    if constexpr (F::has_min) acc = fma(w_min, set1(a_sum), acc);
    return acc;
}

static inline void finish_tile(const float (*acc)[32], int mr, int columns, float* out, ptrdiff_t ldout, bool accumulate) {
    for (int r = 0; r < mr; r++) {
        float* row = out + r * ldout;
        if (columns == 32) {
            for (int h = 0; h < 32; h += 16) {
                V16 y = load(acc[r] + h);
                store(row + h, accumulate ? add(load(row + h), y) : y);
            }
        } else {
            for (int c = 0; c < columns; c++) row[c] = accumulate ? row[c] + acc[r][c] : acc[r][c];
        }
    }
}

#if defined(__AVX512F__)

// The dot-product instruction as asm: from intrinsics GCC 12 spills the 24 accumulators and halves the speed.
static inline __attribute__((always_inline)) void dot4(__m512i& acc, __m512i w, __m512i a) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
}

template <class F, int MR>
static void tile(const uint8_t* w, const int8_t* a, const float* a_scale, const int32_t* neg32, const int32_t* neg16,
                 const float* sum32, const float* sum16, int num_blocks, float (*acc)[32]) {
    constexpr int kSubs = 32 / F::sub, kQuads = F::sub / 4;
    // few rows: two chains per accumulator hide the latency of the dot product; their sum is exact
    constexpr int kChains = MR <= 4 ? 2 : 1;
    const __m512i low_nibble = _mm512_set1_epi8(15);
    const uint8_t* header = w;
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) store(acc[r], set1(0)), store(acc[r] + 16, set1(0));
    for (int block = 0; block < num_blocks; block++) {
        if constexpr (F::super)
            if (block % 8 == 0) header = w, w += F::header_bytes;
        const uint8_t *scales = w, *quants = w + F::scale_bytes;
        w = quants + F::quant_bytes;
        if constexpr (MR <= 4)
            for (int line = 0; line < F::scale_bytes + F::quant_bytes; line += 64) _mm_prefetch((const char*)scales + 2048 + line, _MM_HINT_T0);
#pragma GCC unroll 2
        for (int s = 0; s < kSubs; s++) {
            __m512i dot[MR][2][kChains];
            const int32_t* neg = F::sub == 32 ? neg32 : neg16 + s * MR;
#pragma GCC unroll 12
            for (int r = 0; r < MR; r++) {
                __m512i begin = _mm512_setzero_si512();
                if constexpr (F::zero != 0) begin = _mm512_slli_epi32(_mm512_set1_epi32(neg[r]), F::zero_shift);
                dot[r][0][0] = dot[r][1][0] = begin;
                if constexpr (kChains == 2) dot[r][0][1] = dot[r][1][1] = _mm512_setzero_si512();
            }
            if constexpr (F::bits == 8) {
#pragma GCC unroll 8
                for (int quad = 0; quad < kQuads; quad++) {
                    const uint8_t* line = quants + (s * kQuads + quad) * 128;
                    const __m512i w0 = _mm512_load_si512(line), w1 = _mm512_load_si512(line + 64);
#pragma GCC unroll 12
                    for (int r = 0; r < MR; r++) {
                        int32_t four;
                        __builtin_memcpy(&four, a + (s * kQuads + quad) * MR * 4 + r * 4, 4);
                        const __m512i x = _mm512_set1_epi32(four);
                        dot4(dot[r][0][quad % kChains], w0, x);
                        dot4(dot[r][1][quad % kChains], w1, x);
                    }
                }
            } else {
#pragma GCC unroll 4
                for (int pair = 0; pair < kQuads / 2; pair++) {
                    const uint8_t* line = quants + (s * kQuads / 2 + pair) * 128;
                    const __m512i x0 = _mm512_load_si512(line), x1 = _mm512_load_si512(line + 64);
                    __m512i w0 = _mm512_and_si512(x0, low_nibble), w1 = _mm512_and_si512(x1, low_nibble);
#pragma GCC unroll 2
                    for (int high = 0; high < 2; high++) {
                        if (high) {
                            w0 = _mm512_and_si512(_mm512_srli_epi16(x0, 4), low_nibble);
                            w1 = _mm512_and_si512(_mm512_srli_epi16(x1, 4), low_nibble);
                        }
#pragma GCC unroll 12
                        for (int r = 0; r < MR; r++) {
                            int32_t four;
                            __builtin_memcpy(&four, a + (s * kQuads + 2 * pair + high) * MR * 4 + r * 4, 4);
                            const __m512i x = _mm512_set1_epi32(four);
                            dot4(dot[r][0][high % kChains], w0, x);
                            dot4(dot[r][1][high % kChains], w1, x);
                        }
                    }
                }
            }
            V16 w_min[2] = {};
            const V16 w_scale[2] = {F::scale(header, scales, s, 0), F::scale(header, scales, s, 1)};
            if constexpr (F::has_min) w_min[0] = F::min(header, scales, s, 0), w_min[1] = F::min(header, scales, s, 1);
            const float* sum = F::sub == 32 ? sum32 : sum16 + s * MR;
#pragma GCC unroll 12
            for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    __m512i total = dot[r][h][0];
                    if constexpr (kChains == 2) total = _mm512_add_epi32(total, dot[r][h][1]);
                    const V16 value = {_mm512_cvtepi32_ps(total)};
                    store(acc[r] + 16 * h, fold_dot<F>(value, w_scale[h], w_min[h], a_scale[r], sum[r], load(acc[r] + 16 * h)));
                }
        }
        a += 32 * MR;
        a_scale += MR;
        neg32 += MR, sum32 += MR;
        neg16 += 2 * MR, sum16 += 2 * MR;
    }
}

#elif defined(__AVX2__)

// Four k of eight columns: pairs summed in int16. u is unsigned; no sum of the caller's chain may pass 32767.
static inline __m256i dot_pairs(__m256i u, __m256i a) { return _mm256_maddubs_epi16(u, a); }

// int32 dot of R rows with 8 columns over one sub-block; line_at(quad) gives the 32 bytes of a quad
template <class F, int R, class Load>
static inline void dots(Load quad_at, const int8_t* a, int mr, const int32_t* neg, __m256i (&dot)[R]) {
    constexpr int kQuads = F::sub / 4;
    // how many int16 pair sums fit before they must widen: 2 * max * 127 * n <= 32767
    constexpr int kRun = F::max_value <= 15 ? 8 : F::max_value <= 31 ? 4 : F::max_value <= 63 ? 2 : 1;
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
        dot[r] = F::max_value == 255 || F::zero == 0 ? _mm256_setzero_si256() : _mm256_slli_epi32(_mm256_set1_epi32(neg[r]), F::zero_shift);
    for (int first = 0; first < kQuads; first += kRun) {
        __m256i run[R];
        constexpr int kCount = kRun < kQuads ? kRun : kQuads;
#pragma GCC unroll 8
        for (int i = 0; i < kCount; i++) {
            __m256i u = quad_at(first + i);
            if constexpr (F::max_value == 255) u = _mm256_xor_si256(u, _mm256_set1_epi8((char)0x80));  // signed again
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                int32_t four;
                __builtin_memcpy(&four, a + (ptrdiff_t)(first + i) * mr * 4 + r * 4, 4);
                const __m256i x = _mm256_set1_epi32(four);
                const __m256i pairs = F::max_value == 255 ? dot_pairs(_mm256_abs_epi8(u), _mm256_sign_epi8(x, u)) : dot_pairs(u, x);
                run[r] = i == 0 ? pairs : _mm256_add_epi16(run[r], pairs);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(run[r], ones));
    }
}

template <class F, int R>
static void rows_of_tile(const uint8_t* w, const int8_t* a, const float* a_scale, const int32_t* neg32, const int32_t* neg16,
                         const float* sum32, const float* sum16, int mr, int num_blocks, float (*acc)[32]) {
    constexpr int kSubs = 32 / F::sub, kQuads = F::sub / 4;
    const uint8_t* header = w;
    for (int r = 0; r < R; r++) store(acc[r], set1(0)), store(acc[r] + 16, set1(0));
    for (int block = 0; block < num_blocks; block++) {
        if constexpr (F::super)
            if (block % 8 == 0) header = w, w += F::header_bytes;
        const uint8_t *scales = w, *quants = w + F::scale_bytes;
        w = quants + F::quant_bytes;
        for (int s = 0; s < kSubs; s++) {
            const int32_t* neg = F::sub == 32 ? neg32 : neg16 + s * mr;
            const float* sum = F::sub == 32 ? sum32 : sum16 + s * mr;
            for (int h = 0; h < 2; h++) {
                const V16 w_scale = F::scale(header, scales, s, h), w_min = F::has_min ? F::min(header, scales, s, h) : set1(0);
                __m256i dot[2][R];
                for (int eight = 0; eight < 2; eight++) {
                    const uint8_t* column = quants + h * 64 + eight * 32;
                    auto quad_at = [&](int quad) {
                        quad += s * kQuads;
                        if constexpr (F::bits == 8) return _mm256_loadu_si256((const __m256i*)(column + quad * 128));
                        __m256i x = _mm256_loadu_si256((const __m256i*)(column + quad / 2 * 128));
                        if (quad % 2) x = _mm256_srli_epi16(x, 4);
                        return _mm256_and_si256(x, _mm256_set1_epi8(15));
                    };
                    dots<F, R>(quad_at, a + (ptrdiff_t)s * kQuads * mr * 4, mr, neg, dot[eight]);
                }
                for (int r = 0; r < R; r++) {
                    const V16 value = {_mm256_cvtepi32_ps(dot[0][r]), _mm256_cvtepi32_ps(dot[1][r])};
                    store(acc[r] + 16 * h, fold_dot<F>(value, w_scale, w_min, a_scale[r], sum[r], load(acc[r] + 16 * h)));
                }
            }
        }
        a += 32 * mr;
        a_scale += mr;
        neg32 += mr, sum32 += mr;
        neg16 += 2 * mr, sum16 += 2 * mr;
    }
}

template <class F, int MR>
static void tile(const uint8_t* w, const int8_t* a, const float* a_scale, const int32_t* neg32, const int32_t* neg16,
                 const float* sum32, const float* sum16, int num_blocks, float (*acc)[32]) {
    int r = 0;
    for (; r + 4 <= MR; r += 4)
        rows_of_tile<F, 4>(w, a + 4 * r, a_scale + r, neg32 + r, neg16 + r, sum32 + r, sum16 + r, MR, num_blocks, acc + r);
    if constexpr (MR % 4 != 0)
        rows_of_tile<F, MR % 4>(w, a + 4 * r, a_scale + r, neg32 + r, neg16 + r, sum32 + r, sum16 + r, MR, num_blocks, acc + r);
}

#else

template <class F, int MR>
static void tile(const uint8_t* w, const int8_t* a, const float* a_scale, const int32_t* neg32, const int32_t* neg16,
                 const float* sum32, const float* sum16, int num_blocks, float (*acc)[32]) {
    constexpr int kSubs = 32 / F::sub, kQuads = F::sub / 4;
    const uint8_t* header = w;
    for (int r = 0; r < MR; r++) store(acc[r], set1(0)), store(acc[r] + 16, set1(0));
    for (int block = 0; block < num_blocks; block++) {
        if (F::super && block % 8 == 0) header = w, w += F::header_bytes;
        const uint8_t *scales = w, *quants = w + F::scale_bytes;
        w = quants + F::quant_bytes;
        for (int s = 0; s < kSubs; s++)
            for (int h = 0; h < 2; h++) {
                const V16 w_scale = F::scale(header, scales, s, h), w_min = F::has_min ? F::min(header, scales, s, h) : set1(0);
                for (int r = 0; r < MR; r++) {
                    const int32_t neg = F::sub == 32 ? neg32[r] : neg16[s * MR + r];
                    const float sum = F::sub == 32 ? sum32[r] : sum16[s * MR + r];
                    V16 value;
                    for (int c = 0; c < 16; c++) {
                        int32_t dot = neg * F::zero;
                        for (int quad = s * kQuads; quad < (s + 1) * kQuads; quad++)
                            for (int i = 0; i < 4; i++) {
                                const int column = (16 * h + c) * 4 + i;
                                const int u = F::bits == 8 ? quants[quad * 128 + column] : quants[quad / 2 * 128 + column] >> (quad % 2 * 4) & 15;
                                dot += u * a[quad * MR * 4 + r * 4 + i];
                            }
                        value.v[c] = (float)dot;
                    }
                    store(acc[r] + 16 * h, fold_dot<F>(value, w_scale, w_min, a_scale[r], sum, load(acc[r] + 16 * h)));
                }
            }
        a += 32 * MR;
        a_scale += MR;
        neg32 += MR, sum32 += MR;
        neg16 += 2 * MR, sum16 += 2 * MR;
    }
}

#endif

template <class F>
static void gemm_format(const PackedMatrix& w, const QuantRows& a, int panel_begin, int panel_end, float* out,
                        ptrdiff_t ldout, bool accumulate) {
    using Tile = void (*)(const uint8_t*, const int8_t*, const float*, const int32_t*, const int32_t*, const float*,
                          const float*, int, float (*)[32]);
    static constexpr Tile kTiles[kTileRows] = {tile<F, 1>, tile<F, 2>, tile<F, 3>, tile<F, 4>,  tile<F, 5>,  tile<F, 6>,
                                               tile<F, 7>, tile<F, 8>, tile<F, 9>, tile<F, 10>, tile<F, 11>, tile<F, 12>};
    const int k = w.k, tiles = num_tiles(a.num_rows);
    alignas(64) float acc[kTileRows][32];
    for (int panel = panel_begin; panel < panel_end; panel++) {
        const uint8_t* data = w.data + panel * w.panel_bytes;
        const int first = panel * kPanelColumns, columns = w.n - first < kPanelColumns ? w.n - first : kPanelColumns;
        for (int t = 0; t < tiles; t++) {
            const ptrdiff_t start = tile_start(a.num_rows, t);
            const int mr = tile_start(a.num_rows, t + 1) - (int)start;
            const ptrdiff_t at32 = start * (k / 32), at16 = start * (k / 16);
            kTiles[mr - 1](data, a.q + start * k, a.scale + at32, a.neg_sum32 + at32, a.neg_sum16 + at16,
                           a.scaled_sum32 + at32, a.scaled_sum16 + at16, k / 32, acc);
            finish_tile(acc, mr, columns, out + start * ldout + first, ldout, accumulate);
        }
    }
}

static void gemm_quant(const PackedMatrix& w, const QuantRows& a, int panel_begin, int panel_end, float* out,
                       ptrdiff_t ldout, bool accumulate) {
    switch (w.type) {  // GGUF's numbers; the parameters repeat kFormats of pack.cpp
        case 2: return gemm_format<Packed<4, 8, false, 32, false, 15>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 3: return gemm_format<Packed<4, 0, true, 32, false, 15>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 6: return gemm_format<Packed<8, 16, false, 32, false, 31>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 7: return gemm_format<Packed<8, 0, true, 32, false, 31>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 8: return gemm_format<Packed<8, 128, false, 32, false, 255>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 10: return gemm_format<Packed<4, 0, true, 16, true, 3>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 11: return gemm_format<Packed<4, 4, false, 16, true, 7>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 12: return gemm_format<Packed<4, 0, true, 32, true, 15>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 13: return gemm_format<Packed<8, 0, true, 32, true, 31>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 14: return gemm_format<Packed<8, 32, false, 16, true, 63>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
    }
}

#if defined(__AVX512F__)
constexpr int kFloatRows = 12, kFloatHalves = 2;
#else
constexpr int kFloatRows = 4, kFloatHalves = 1;
#endif

// 16 weights of the file's own float type as fp32
template <int Type>
static inline V16 load_weights(const uint8_t* p) {
    if constexpr (Type == 0) return load((const float*)p);
    if constexpr (Type == 1) return load_half(p);
    return load_bf16((const uint16_t*)p);
}

template <int Type, int R>
static inline void float_tile(const uint8_t* w, int k, const float* x, ptrdiff_t ldx, int half, float (*out)[32]) {
    constexpr int kSize = Type == 0 ? 4 : 2;
    V16 acc[R][kFloatHalves];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int h = 0; h < kFloatHalves; h++) acc[r][h] = set1(0);
    for (int i = 0; i < k; i++) {
        V16 weight[kFloatHalves];
#pragma GCC unroll 2
        for (int h = 0; h < kFloatHalves; h++) weight[h] = load_weights<Type>(w + ((size_t)i * 32 + 16 * (half + h)) * kSize);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const V16 value = set1(x[r * ldx + i]);
#pragma GCC unroll 2
            for (int h = 0; h < kFloatHalves; h++) acc[r][h] = fma(value, weight[h], acc[r][h]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int h = 0; h < kFloatHalves; h++) store(out[r] + 16 * (half + h), acc[r][h]);
}

template <int Type, int R>
static void float_rows(const uint8_t* w, int k, const float* x, ptrdiff_t ldx, int num_rows, float (*acc)[32]) {
    if (num_rows == R) {
        for (int half = 0; half < 2; half += kFloatHalves) float_tile<Type, R>(w, k, x, ldx, half, acc);
    } else if constexpr (R > 1) {
        float_rows<Type, R - 1>(w, k, x, ldx, num_rows, acc);
    }
}

static void gemm_float(const PackedMatrix& w, const float* x, ptrdiff_t ldx, int num_rows, int panel_begin, int panel_end,
                       float* out, ptrdiff_t ldout, bool accumulate) {
    alignas(64) float acc[kFloatRows][32];
    for (int panel = panel_begin; panel < panel_end; panel++) {
        const uint8_t* data = w.data + panel * w.panel_bytes;
        const int first = panel * kPanelColumns, columns = w.n - first < kPanelColumns ? w.n - first : kPanelColumns;
        for (int m = 0; m < num_rows; m += kFloatRows) {
            const int count = num_rows - m < kFloatRows ? num_rows - m : kFloatRows;
            const float* rows = x + m * ldx;
            if (w.type == 0) float_rows<0, kFloatRows>(data, w.k, rows, ldx, count, acc);
            else if (w.type == 1) float_rows<1, kFloatRows>(data, w.k, rows, ldx, count, acc);
            else float_rows<30, kFloatRows>(data, w.k, rows, ldx, count, acc);
            finish_tile(acc, count, columns, out + m * ldout + first, ldout, accumulate);
        }
    }
}
