// Activations to int8. Contract and bit rule: gemm.h. Included by gemm.inl.

constexpr int kGroupSlices = kGroup / 16;

// What the slices of one group of one row have in common with their neighbours; all (kGroupSlices,).
struct GroupSlices {
    alignas(64) float amax[kGroupSlices];
    alignas(64) int32_t e[kGroupSlices];
    alignas(64) int32_t sum[kGroupSlices];
};

// Exponents of the slices from their amax; amax of a slice that the group lacks is 0.
static inline void choose_exponents(GroupSlices& s, float largest_value) {
    for (int i = 0; i < kGroupSlices; i++) {
        // the borrow of the mantissas makes this the floor of log2(largest / amax)
        const int32_t ratio = (__builtin_bit_cast(int32_t, largest_value) - __builtin_bit_cast(int32_t, s.amax[i])) >> 23;
        s.e[i] = ratio < kMaxExponent ? ratio : kMaxExponent;
    }
    for (int i = 0; i < kGroupSlices; i += 2) s.e[i + 1] = s.e[i + 1] < s.e[i] + kMaxLeft ? s.e[i + 1] : s.e[i] + kMaxLeft;
}

// What the row has at each of its blocks of the group; see QuantRows.
static inline void write_factors(const GroupSlices& s, int num_blocks, float* factors, int32_t* offsets, int mr) {
    alignas(64) float magic[kGroupSlices], scaled[kGroupSlices];
    for (int i = 0; i < kGroupSlices; i++) {
        const float unit = __builtin_bit_cast(float, (127 - s.e[i]) << 23);
        magic[i] = 12582912.0f * unit;
        scaled[i] = unit * (float)s.sum[i];
    }
    for (int b = 0; b < num_blocks; b++, factors += 5 * mr, offsets += 4 * mr) {
        const int c = s.e[2 * b + 1] - s.e[2 * b];
        factors[0] = magic[2 * b], factors[mr] = magic[2 * b + 1];
        factors[2 * mr] = scaled[2 * b], factors[3 * mr] = scaled[2 * b + 1], factors[4 * mr] = scaled[2 * b] + scaled[2 * b + 1];
        offsets[0] = -s.sum[2 * b], offsets[mr] = -s.sum[2 * b + 1];
        // 1 << (-c - 1) when slice 0 is the finer one, else 0
        offsets[2 * mr] = kMaxLeft - c, offsets[3 * mr] = (1 << (c < 0 ? -c : 0)) >> 1;
    }
}

// One group of `size` k of one row; q, factors and offsets point at the row's first element of the group.
static inline float quantize_group(const float* x, int size, int8_t* q, float* factors, int32_t* offsets, int mr) {
    alignas(64) int8_t bytes[kGroup];
    GroupSlices s = {};
    for (int i = 0; i < size / 16; i++) s.amax[i] = largest(abs(finite_or_zero(load(x + 16 * i))));
    float largest_value = 0;
    for (int i = 0; i < kGroupSlices; i++) largest_value = s.amax[i] > largest_value ? s.amax[i] : largest_value;
    const bool zero = largest_value < 1e-30f;  // the reciprocal would overflow
    const float inverse = zero ? 0 : 127.0f / largest_value;
    if (!zero) choose_exponents(s, largest_value);
    for (int i = 0; i < size / 16; i++) {
        const float factor = inverse * __builtin_bit_cast(float, (127 + s.e[i]) << 23);
        s.sum[i] = store_bytes(mul(finite_or_zero(load(x + 16 * i)), set1(factor)), bytes + 16 * i);
    }
    for (int quad = 0; quad < size / 4; quad++, q += 4 * mr) __builtin_memcpy(q, bytes + 4 * quad, 4);
    write_factors(s, size / 32, factors, offsets, mr);
    return zero ? 0 : largest_value / 127.0f;
}

#if defined(__AVX512F__)

// lane i = the largest |lane| of v[i]: a tree over all slices at once
static inline __m256 slice_maxima(const __m512 (&v)[kGroupSlices]) {
    __m512 half[4], quarter[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 a = _mm512_abs_ps(v[2 * i]), b = _mm512_abs_ps(v[2 * i + 1]);
        half[i] = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m512 a = half[2 * i], b = half[2 * i + 1];
        quarter[i] = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
    }
    // 128-bit lane i: two of slice i, two of slice 4 + i
    const __m512 pairs = _mm512_max_ps(_mm512_shuffle_ps(quarter[0], quarter[1], 0x44), _mm512_shuffle_ps(quarter[0], quarter[1], 0xEE));
    const __m512 all = _mm512_max_ps(pairs, _mm512_shuffle_ps(pairs, pairs, 0xB1));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps256(_mm512_permutexvar_ps(order, all));
}

// Four slices of integers as 64 bytes.
static inline __m512i to_bytes(const __m512i* wide) {
    const __m512i mixed = _mm512_packs_epi16(_mm512_packs_epi32(wide[0], wide[1]), _mm512_packs_epi32(wide[2], wide[3]));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), mixed);
}

// Every lane the sum of its 128-bit lane's 16 bytes.
static inline __m512i slice_sums(__m512i bytes) {
    const __m512i quads = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
    const __m512i pairs = _mm512_add_epi32(quads, _mm512_shuffle_epi32(quads, _MM_PERM_CDAB));
    return _mm512_add_epi32(pairs, _mm512_shuffle_epi32(pairs, _MM_PERM_BADC));
}

// write_factors() of a whole group; lane i is slice i
static inline void write_whole_factors(__m256i sum, __m256i e, float* factors, int32_t* offsets, int mr) {
    const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi32(1);
    const __m256 unit = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(127), e), 23));
    const __m256 scaled = _mm256_mul_ps(unit, _mm256_cvtepi32_ps(sum));
    // lanes 2b: c of block b
    const __m256i c = _mm256_sub_epi32(_mm256_shuffle_epi32(e, 0xF5), e);
    const __m256i finer = _mm256_max_epi32(_mm256_sub_epi32(zero, c), zero);
    alignas(64) float f[3][kGroupSlices];
    alignas(64) int32_t o[3][kGroupSlices];
    _mm256_store_ps(f[0], _mm256_mul_ps(_mm256_set1_ps(12582912.0f), unit));
    _mm256_store_ps(f[1], scaled);
    _mm256_store_ps(f[2], _mm256_add_ps(scaled, _mm256_movehdup_ps(scaled)));
    _mm256_store_si256((__m256i*)o[0], _mm256_sub_epi32(zero, sum));
    _mm256_store_si256((__m256i*)o[1], _mm256_sub_epi32(_mm256_set1_epi32(kMaxLeft), c));
    _mm256_store_si256((__m256i*)o[2], _mm256_srli_epi32(_mm256_sllv_epi32(one, finer), 1));
#pragma GCC unroll 4
    for (int b = 0; b < kGroup / 32; b++, factors += 5 * mr, offsets += 4 * mr) {
        factors[0] = f[0][2 * b], factors[mr] = f[0][2 * b + 1];
        factors[2 * mr] = f[1][2 * b], factors[3 * mr] = f[1][2 * b + 1], factors[4 * mr] = f[2][2 * b];
        offsets[0] = o[0][2 * b], offsets[mr] = o[0][2 * b + 1], offsets[2 * mr] = o[1][2 * b], offsets[3 * mr] = o[2][2 * b];
    }
}

// quantize_group() of a whole group, all slices at once
static inline float quantize_whole_group(const float* x, int8_t* q, float* factors, int32_t* offsets, int mr) {
    __m512 v[kGroupSlices];
#pragma GCC unroll 8
    for (int i = 0; i < kGroupSlices; i++) v[i] = finite_or_zero(load(x + 16 * i)).v;
    const __m256 amax = slice_maxima(v);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(amax), _mm256_extractf128_ps(amax, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    const float largest_value = _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    const bool zero = largest_value < 1e-30f;
    const float inverse = zero ? 0 : 127.0f / largest_value;
    __m256i e = _mm256_setzero_si256();  // see choose_exponents()
    if (!zero) {
        const __m256i ratio = _mm256_srai_epi32(_mm256_sub_epi32(_mm256_castps_si256(_mm256_set1_ps(largest_value)), _mm256_castps_si256(amax)), 23);
        e = _mm256_min_epi32(ratio, _mm256_set1_epi32(kMaxExponent));
        e = _mm256_min_epi32(e, _mm256_add_epi32(_mm256_shuffle_epi32(e, 0xA0), _mm256_set1_epi32(kMaxLeft)));
    }
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23);
    const __m512 factor = _mm512_castps256_ps512(_mm256_mul_ps(_mm256_set1_ps(inverse), _mm256_castsi256_ps(power)));
    __m512i wide[kGroupSlices];
#pragma GCC unroll 8
    for (int i = 0; i < kGroupSlices; i++)
        wide[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], _mm512_permutexvar_ps(_mm512_set1_epi32(i), factor)));
    const __m512i bytes[2] = {to_bytes(wide), to_bytes(wide + 4)};
    alignas(64) int32_t quads[kGroup / 4];
    _mm512_store_si512(quads, bytes[0]), _mm512_store_si512(quads + 16, bytes[1]);
    for (int i = 0; i < kGroup / 4; i++) __builtin_memcpy(q + (ptrdiff_t)i * 4 * mr, quads + i, 4);
    const __m512i first_lanes = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i sum = _mm512_castsi512_si256(_mm512_permutex2var_epi32(slice_sums(bytes[0]), first_lanes, slice_sums(bytes[1])));
    write_whole_factors(sum, e, factors, offsets, mr);
    return zero ? 0 : largest_value / 127.0f;
}

#else

static inline float quantize_whole_group(const float* x, int8_t* q, float* factors, int32_t* offsets, int mr) {
    return quantize_group(x, kGroup, q, factors, offsets, mr);  // with a constant size its loops unroll
}

#endif

static void quantize_rows(const float* x, ptrdiff_t ldx, int row_begin, int row_end, const QuantRows& out) {
    const int k = out.k, groups = num_groups(k);
    for (int tile = 0, tiles = num_tiles(out.num_rows); tile < tiles; tile++) {
        const int start = tile_start(out.num_rows, tile), end = tile_start(out.num_rows, tile + 1), mr = end - start;
        for (int m = start < row_begin ? row_begin : start; m < (end < row_end ? end : row_end); m++) {
            const int r = m - start;
            for (int g = 0; g < groups; g++) {
                const int first = g * kGroup, size = k - first < kGroup ? k - first : kGroup;
                const float* from = x + (ptrdiff_t)m * ldx + first;
                int8_t* q = out.q + (ptrdiff_t)start * k + (ptrdiff_t)first * mr + r * 4;
                const ptrdiff_t block = (ptrdiff_t)start * (k / 32) + (ptrdiff_t)(first / 32) * mr;
                float* factors = out.factors + block * 5 + r;
                int32_t* offsets = out.offsets + block * 4 + r;
                out.scale[(ptrdiff_t)start * groups + (ptrdiff_t)g * mr + r] =
                    size == kGroup ? quantize_whole_group(from, q, factors, offsets, mr) : quantize_group(from, size, q, factors, offsets, mr);
            }
        }
    }
}
