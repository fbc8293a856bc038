// V16: sixteen floats, the same lane count on every ISA, so that every reduction has one order everywhere.
// Included inside namespace inferd::INFERD_ISA_NS by each isa_*.cpp; everything is static so that no two ISAs merge.
// fma() is a true fused multiply-add on avx512 and avx2; the baseline rounds twice (no FMA unit).

#if defined(__AVX512F__)

struct V16 {
    __m512 v;
};
static inline V16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline void store(float* p, V16 a) { _mm512_storeu_ps(p, a.v); }
static inline V16 set1(float x) { return {_mm512_set1_ps(x)}; }
static inline V16 add(V16 a, V16 b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline V16 sub(V16 a, V16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline V16 mul(V16 a, V16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline V16 div(V16 a, V16 b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline V16 fma(V16 a, V16 b, V16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline V16 max(V16 a, V16 b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline V16 min(V16 a, V16 b) { return {_mm512_min_ps(a.v, b.v)}; }
static inline V16 round_even(V16 a) { return {_mm512_roundscale_ps(a.v, 8)}; }
// a * 2^n for integral n in [-126, 127]
static inline V16 scale_by_pow2(V16 a, V16 n) {
    __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23);
    return {_mm512_mul_ps(a.v, _mm512_castsi512_ps(bits))};
}
// x < limit ? 0 : a
static inline V16 zero_below(V16 x, float limit, V16 a) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ), a.v)};
}
// lanes [begin, end) keep a, the others become b
static inline V16 keep_lanes(V16 a, int begin, int end, V16 b) {
    uint32_t mask = ((1u << end) - 1) & ~((1u << begin) - 1);
    return {_mm512_mask_mov_ps(b.v, (__mmask16)mask, a.v)};
}
static inline V16 load_bf16(const uint16_t* p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
// rounds to bf16 (to nearest even), stores, and returns what was stored; NaN may become any value
static inline V16 store_bf16(uint16_t* p, V16 a) {
    const __m512i bits = _mm512_castps_si512(a.v), lowest = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i high = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, lowest), _mm512_set1_epi32(0x7FFF)), 16);
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(high));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(high, 16))};
}
// as store_bf16 for values that are not negative, ties away from zero: half the instructions
static inline V16 store_bf16_positive(uint16_t* p, V16 a) {
    const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x8000));
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    return {_mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32((int)0xFFFF0000u)))};
}
// 16 pairs of bf16: the first and the second of each pair
static inline void load_bf16_pairs(const uint16_t* p, V16& even, V16& odd) {
    __m512i pairs = _mm512_loadu_si512(p);
    even = {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))};
    odd = {_mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xFFFF0000u)))};
}
static inline V16 abs(V16 a) { return {_mm512_abs_ps(a.v)}; }
// every NaN becomes the one whose low 16 bits are 0
static inline V16 plain_nan(V16 a) {
    const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
    return {_mm512_mask_mov_ps(a.v, _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), nan)};
}
// inf and NaN become 0
static inline V16 finite_or_zero(V16 a) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_sub_ps(a.v, a.v), _mm512_setzero_ps(), _CMP_EQ_OQ), a.v)};
}
// Rounds to nearest even, stores 16 bytes; returns their sum. Values must fit int8.
static inline int32_t store_bytes(V16 a, int8_t* out) {
    const __m512i wide = _mm512_cvtps_epi32(a.v);
    const __m128i bytes = _mm512_cvtepi32_epi8(wide);
    _mm_storeu_si128((__m128i*)out, bytes);
    // +128 makes them unsigned for the sum of absolute differences with 0
    const __m128i sums = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8((char)0x80)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 2) - 16 * 128;
}
static inline __m256 fold(V16 a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
}
static inline __m256 fold_max(V16 a) {
    return _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
}

#elif defined(__AVX2__)

struct V16 {
    __m256 lo, hi;
};
#define INFERD_BOTH(f) {_mm256_##f##_ps(a.lo, b.lo), _mm256_##f##_ps(a.hi, b.hi)}
static inline V16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, V16 a) { _mm256_storeu_ps(p, a.lo), _mm256_storeu_ps(p + 8, a.hi); }
static inline V16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline V16 add(V16 a, V16 b) { return INFERD_BOTH(add); }
static inline V16 sub(V16 a, V16 b) { return INFERD_BOTH(sub); }
static inline V16 mul(V16 a, V16 b) { return INFERD_BOTH(mul); }
static inline V16 div(V16 a, V16 b) { return INFERD_BOTH(div); }
static inline V16 max(V16 a, V16 b) { return INFERD_BOTH(max); }
static inline V16 min(V16 a, V16 b) { return INFERD_BOTH(min); }
#undef INFERD_BOTH
static inline V16 fma(V16 a, V16 b, V16 c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
static inline V16 round_even(V16 a) { return {_mm256_round_ps(a.lo, 8), _mm256_round_ps(a.hi, 8)}; }
static inline __m256 pow2_half(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline V16 scale_by_pow2(V16 a, V16 n) {
    return {_mm256_mul_ps(a.lo, pow2_half(n.lo)), _mm256_mul_ps(a.hi, pow2_half(n.hi))};
}
static inline V16 zero_below(V16 x, float limit, V16 a) {
    __m256 l = _mm256_set1_ps(limit);
    return {_mm256_and_ps(_mm256_cmp_ps(x.lo, l, _CMP_NLT_UQ), a.lo),
            _mm256_and_ps(_mm256_cmp_ps(x.hi, l, _CMP_NLT_UQ), a.hi)};
}
static inline V16 keep_lanes(V16 a, int begin, int end, V16 b) {
    const __m256i first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), second = _mm256_add_epi32(first, _mm256_set1_epi32(8));
    auto inside = [&](__m256i lane) {
        __m256i from = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(begin - 1));
        return _mm256_castsi256_ps(_mm256_and_si256(from, _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane)));
    };
    return {_mm256_blendv_ps(b.lo, a.lo, inside(first)), _mm256_blendv_ps(b.hi, a.hi, inside(second))};
}
static inline __m256 widen_bf16(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
static inline V16 load_bf16(const uint16_t* p) {
    return {widen_bf16(_mm_loadu_si128((const __m128i*)p)), widen_bf16(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
static inline void load_bf16_pairs(const uint16_t* p, V16& even, V16& odd) {
    const __m256i high = _mm256_set1_epi32((int)0xFFFF0000u);
    __m256i a = _mm256_loadu_si256((const __m256i*)p), b = _mm256_loadu_si256((const __m256i*)(p + 16));
    even = {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
    odd = {_mm256_castsi256_ps(_mm256_and_si256(a, high)), _mm256_castsi256_ps(_mm256_and_si256(b, high))};
}
static inline __m256i bf16_half(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a), lowest = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, lowest), _mm256_set1_epi32(0x7FFF)), 16);
}
static inline V16 store_bf16(uint16_t* p, V16 a) {
    const __m256i lo = bf16_half(a.lo), hi = bf16_half(a.hi);
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xD8));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}
static inline V16 store_bf16_positive(uint16_t* p, V16 a) {
    const __m256i half = _mm256_set1_epi32(0x8000), high = _mm256_set1_epi32((int)0xFFFF0000u);
    const __m256i lo = _mm256_add_epi32(_mm256_castps_si256(a.lo), half), hi = _mm256_add_epi32(_mm256_castps_si256(a.hi), half);
    const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(lo, 16), _mm256_srli_epi32(hi, 16));
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(packed, 0xD8));
    return {_mm256_castsi256_ps(_mm256_and_si256(lo, high)), _mm256_castsi256_ps(_mm256_and_si256(hi, high))};
}
static inline V16 plain_nan(V16 a) {
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000));
    return {_mm256_blendv_ps(a.lo, nan, _mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q)),
            _mm256_blendv_ps(a.hi, nan, _mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q))};
}
static inline V16 abs(V16 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
static inline V16 finite_or_zero(V16 a) {
    const __m256 zero = _mm256_setzero_ps();
    return {_mm256_and_ps(_mm256_cmp_ps(_mm256_sub_ps(a.lo, a.lo), zero, _CMP_EQ_OQ), a.lo),
            _mm256_and_ps(_mm256_cmp_ps(_mm256_sub_ps(a.hi, a.hi), zero, _CMP_EQ_OQ), a.hi)};
}
static inline int32_t store_bytes(V16 a, int8_t* out) {
    const __m256i pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
    const __m256i ordered = _mm256_permute4x64_epi64(pairs, 0xD8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128((__m128i*)out, bytes);
    const __m128i sums = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8((char)0x80)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 2) - 16 * 128;
}
static inline __m256 fold(V16 a) { return _mm256_add_ps(a.lo, a.hi); }
static inline __m256 fold_max(V16 a) { return _mm256_max_ps(a.lo, a.hi); }

#else

struct V16 {
    float v[16];
};
#define INFERD_EACH(expr) \
    V16 r; \
    for (int i = 0; i < 16; i++) r.v[i] = (expr); \
    return r
static inline V16 load(const float* p) { INFERD_EACH(p[i]); }
static inline void store(float* p, const V16& a) {
    for (int i = 0; i < 16; i++) p[i] = a.v[i];
}
static inline V16 set1(float x) { INFERD_EACH(x); }
static inline V16 add(const V16& a, const V16& b) { INFERD_EACH(a.v[i] + b.v[i]); }
static inline V16 sub(const V16& a, const V16& b) { INFERD_EACH(a.v[i] - b.v[i]); }
static inline V16 mul(const V16& a, const V16& b) { INFERD_EACH(a.v[i] * b.v[i]); }
static inline V16 div(const V16& a, const V16& b) { INFERD_EACH(a.v[i] / b.v[i]); }
static inline V16 fma(const V16& a, const V16& b, const V16& c) { INFERD_EACH(a.v[i] * b.v[i] + c.v[i]); }
static inline V16 max(const V16& a, const V16& b) { INFERD_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
static inline V16 min(const V16& a, const V16& b) { INFERD_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
static inline V16 round_even(const V16& a) { INFERD_EACH(__builtin_rintf(a.v[i])); }
static inline float bits_to_float(uint32_t x) { return __builtin_bit_cast(float, x); }
static inline V16 scale_by_pow2(const V16& a, const V16& n) {
    INFERD_EACH(a.v[i] * bits_to_float((uint32_t)((int)n.v[i] + 127) << 23));
}
static inline V16 zero_below(const V16& x, float limit, const V16& a) { INFERD_EACH(x.v[i] < limit ? 0.0f : a.v[i]); }
static inline V16 keep_lanes(const V16& a, int begin, int end, const V16& b) {
    INFERD_EACH(i >= begin && i < end ? a.v[i] : b.v[i]);
}
static inline V16 load_bf16(const uint16_t* p) { INFERD_EACH(bits_to_float((uint32_t)p[i] << 16)); }
static inline V16 store_bf16(uint16_t* p, const V16& a) {
    V16 r;
    for (int i = 0; i < 16; i++) {
        const uint32_t bits = __builtin_bit_cast(uint32_t, a.v[i]);
        p[i] = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        r.v[i] = bits_to_float((uint32_t)p[i] << 16);
    }
    return r;
}
static inline V16 store_bf16_positive(uint16_t* p, const V16& a) {
    V16 r;
    for (int i = 0; i < 16; i++) {
        p[i] = (uint16_t)((__builtin_bit_cast(uint32_t, a.v[i]) + 0x8000) >> 16);
        r.v[i] = bits_to_float((uint32_t)p[i] << 16);
    }
    return r;
}
static inline void load_bf16_pairs(const uint16_t* p, V16& even, V16& odd) {
    for (int i = 0; i < 16; i++) {
        even.v[i] = bits_to_float((uint32_t)p[2 * i] << 16);
        odd.v[i] = bits_to_float((uint32_t)p[2 * i + 1] << 16);
    }
}
static inline V16 plain_nan(const V16& a) { INFERD_EACH(a.v[i] != a.v[i] ? bits_to_float(0x7FC00000u) : a.v[i]); }
static inline V16 abs(const V16& a) { INFERD_EACH(__builtin_fabsf(a.v[i])); }
static inline V16 finite_or_zero(const V16& a) { INFERD_EACH(a.v[i] - a.v[i] == 0 ? a.v[i] : 0.0f); }
static inline int32_t store_bytes(const V16& a, int8_t* out) {
    int32_t total = 0;
    for (int i = 0; i < 16; i++) out[i] = (int8_t)__builtin_rintf(a.v[i]), total += out[i];
    return total;
}
#undef INFERD_EACH

#endif

// Sum of the lanes in one fixed tree: i with i+8, then +4, +2, +1.
static inline float sum(const V16& a) {
#if defined(__AVX2__)
    __m256 eight = fold(a);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
    float t[8];
    for (int i = 0; i < 8; i++) t[i] = a.v[i] + a.v[i + 8];
    for (int w = 4; w > 0; w /= 2)
        for (int i = 0; i < w; i++) t[i] = t[i] + t[i + w];
    return t[0];
#endif
}

static inline float largest(const V16& a) {
#if defined(__AVX2__)
    __m256 eight = fold_max(a);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
#else
    float m = a.v[0];
    for (int i = 1; i < 16; i++) m = a.v[i] > m ? a.v[i] : m;
    return m;
#endif
}

// whether some lane equals x
static inline bool any_equal(const V16& a, float x) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(x), _CMP_EQ_OQ) != 0;
#elif defined(__AVX2__)
    const __m256 wanted = _mm256_set1_ps(x);
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(a.lo, wanted, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, wanted, _CMP_EQ_OQ))) != 0;
#else
    bool any = false;
    for (int i = 0; i < 16; i++) any |= a.v[i] == x;
    return any;
#endif
}

// e^x, error below 2 ulp; 0 below -87.3; saturates above 88; exp(0) is exactly 1.
static inline V16 exp(V16 x) {
    V16 y = min(max(x, set1(-87.3f)), set1(88.0f));
    V16 n = round_even(mul(y, set1(1.44269504f)));
    V16 r = fma(n, set1(-0.693359375f), y);
    r = fma(n, set1(2.12194440e-4f), r);
    V16 p = fma(r, set1(1.9875691500e-4f), set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    p = fma(p, mul(r, r), add(r, set1(1.0f)));
    return zero_below(x, -87.3f, scale_by_pow2(p, n));
}

static inline float exp1(float x) {
    float lanes[16];
    store(lanes, exp(set1(x)));
    return lanes[0];
}

// cap * tanh(x / cap)
static inline V16 soft_cap(V16 x, float cap) {
    V16 e = exp(mul(x, set1(2.0f / cap)));
    return mul(set1(cap), sub(set1(1.0f), div(set1(2.0f), add(e, set1(1.0f)))));
}
