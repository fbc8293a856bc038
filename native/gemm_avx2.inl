// The tile for AVX2. Included by gemm.inl.

// 8 columns of one quad of k
template <class P>
static inline __m256i load_quad(const uint8_t* column, int quad) {
    if constexpr (P::bits == 8) {
        const __m256i x = _mm256_loadu_si256((const __m256i*)(column + quad * 128));
        return P::zero == 128 ? _mm256_xor_si256(x, _mm256_set1_epi8((char)0x80)) : x;
    }
    __m256i x = _mm256_loadu_si256((const __m256i*)(column + quad / 2 * 128));
    if (quad % 2) x = _mm256_srli_epi16(x, 4);
    return _mm256_and_si256(x, _mm256_set1_epi8(15));
}

static inline __m256i broadcast4(const int8_t* a) {
    int32_t four;
    __builtin_memcpy(&four, a, 4);
    return _mm256_set1_epi32(four);
}

// dot[r] += R rows with 8 columns over slice `index` of a K-block; a is at the block's first quad. The four quads of
// weights stay in registers for all rows. Pairs are summed in int16 as long as they fit, then widened.
template <class P, int R>
static inline __attribute__((always_inline)) void add_slice(const uint8_t* column, int index, const int8_t* a, int mr,
                                                            __m256i (&dot)[R]) {
    constexpr bool kSigned = P::zero == 128;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i w[4], size[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        w[i] = load_quad<P>(column, index * 4 + i);
        size[i] = kSigned ? _mm256_abs_epi8(w[i]) : w[i];
    }
    a += (ptrdiff_t)index * 16 * mr;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int first = 0; first < 4; first += P::run) {
            __m256i pairs;
#pragma GCC unroll 4
            for (int i = first; i < first + P::run; i++) {
                const __m256i x = broadcast4(a + (ptrdiff_t)i * mr * 4 + r * 4);
                const __m256i two = _mm256_maddubs_epi16(size[i], kSigned ? _mm256_sign_epi8(x, w[i]) : x);
                pairs = i == first ? two : _mm256_add_epi16(pairs, two);
            }
            dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(pairs, ones));
        }
        __asm__ volatile("" ::: "memory");
    }
}

// Dots of R rows with 8 columns over sub-block s.
template <class P, int R>
static inline __attribute__((always_inline)) void sub_block_dots(const uint8_t* column, int s, const int8_t* a,
                                                                 const int32_t* o, int mr, __m256i (&dot)[R]) {
    constexpr int kSlices = P::sub / 16, kZeroShift = P::zero ? __builtin_ctz(P::zero ? P::zero : 1) : 0;
    constexpr bool kOffset = P::zero != 0 && P::zero != 128;
    auto offset = [&](int slice, int r) { return _mm256_slli_epi32(_mm256_set1_epi32(o[slice * mr + r]), kZeroShift); };
    const int first = s * kSlices;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        dot[r] = kSlices == 2 ? _mm256_set1_epi32(o[3 * mr + r]) : _mm256_setzero_si256();
        if constexpr (kOffset) dot[r] = _mm256_add_epi32(dot[r], offset(first, r));
    }
    add_slice<P, R>(column, first, a, mr, dot);
    if constexpr (kSlices == 2) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            dot[r] = _mm256_srav_epi32(_mm256_slli_epi32(dot[r], kMaxLeft), _mm256_set1_epi32(o[2 * mr + r]));
            if constexpr (kOffset) dot[r] = _mm256_add_epi32(dot[r], offset(1, r));
        }
        add_slice<P, R>(column, 1, a, mr, dot);
    }
}

// 2^-e eight times, see unit_of()
static inline __m256 units_of(const float* magic) {
    const __m256i exponent = _mm256_and_si256(_mm256_castps_si256(_mm256_broadcast_ss(magic)), _mm256_set1_epi32(0x7F800000));
    return _mm256_castsi256_ps(_mm256_sub_epi32(exponent, _mm256_set1_epi32(23 << 23)));
}

// acc[r] += R of the tile's mr rows
template <class P, int R>
static void some_rows(const uint8_t* w, TileRows rows, int mr, int num_blocks, float (*acc)[32]) {
    constexpr int kSlices = P::sub / 16, kSubs = 32 / P::sub;
    alignas(32) float part[R][32];
    clear_rows(part, R);
    for (int block = 0; block < num_blocks; block++) {
        const uint8_t *header = w + block / 8 * P::chunk_bytes, *at = header + P::header_bytes + block % 8 * P::block_bytes;
        const int8_t* a = rows.q + (ptrdiff_t)block * 32 * mr;
        const float* f = rows.factors + (ptrdiff_t)block * 5 * mr;
        const int32_t* o = rows.offsets + (ptrdiff_t)block * 4 * mr;
        for (int s = 0; s < kSubs; s++)
            for (int h = 0; h < 2; h++) {
                alignas(32) float scales[16], minima[16];
                store(scales, P::scale(header, at, s, h));
                if constexpr (P::has_min) store(minima, P::min(header, at, s, h));
                for (int eight = 0; eight < 2; eight++) {
                    __asm__ volatile("" ::: "memory");  // each half loads its rows anew: kept, they are spilled
                    __m256i dot[R];
                    sub_block_dots<P, R>(at + P::scale_bytes + h * 64 + eight * 32, s, a, o, mr, dot);
                    const __m256 scale = _mm256_load_ps(scales + 8 * eight), min = _mm256_load_ps(minima + 8 * eight);
#pragma GCC unroll 4
                    for (int r = 0; r < R; r++) {
                        float* to = part[r] + 16 * h + 8 * eight;
                        const __m256 unit = units_of(f + (kSlices == 2 ? 1 : s) * mr + r);
                        const __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(dot[r]), unit);
                        __m256 y = _mm256_fmadd_ps(value, scale, _mm256_load_ps(to));
                        if constexpr (P::has_min) {
                            const float* sum = f + (kSlices == 2 ? 4 : 2 + s) * mr + r;
                            y = _mm256_fmadd_ps(min, _mm256_broadcast_ss(sum), y);
                        }
                        _mm256_store_ps(to, y);
                    }
                }
            }
        if (block % (kGroup / 32) == kGroup / 32 - 1 || block == num_blocks - 1) {
            for (int r = 0; r < R; r++) {
                const V16 scale = set1(rows.scale[(ptrdiff_t)(block / (kGroup / 32)) * mr + r]);
                for (int h = 0; h < 32; h += 16) store(acc[r] + h, fma(load(part[r] + h), scale, load(acc[r] + h)));
            }
            clear_rows(part, R);
        }
    }
}

constexpr int kDirectRows = 12;

constexpr int kRowsAtOnce = 4;  // with 6 the compiler spills

template <class P, int MR, int Part = 0>
static inline void all_rows(const uint8_t* w, TileRows rows, int num_blocks, float (*acc)[32]) {
    constexpr int kParts = (MR + kRowsAtOnce - 1) / kRowsAtOnce;
    constexpr int kFirst = MR * Part / kParts, kEnd = MR * (Part + 1) / kParts;
    const TileRows some{rows.q + 4 * kFirst, rows.scale + kFirst, rows.factors + kFirst, rows.offsets + kFirst};
    some_rows<P, kEnd - kFirst>(w, some, MR, num_blocks, acc + kFirst);
    if constexpr (Part + 1 < kParts) all_rows<P, MR, Part + 1>(w, rows, num_blocks, acc);
}

// acc[r] += product of the tile's rows with num_blocks K-blocks of a panel; w is at a multiple of 8 blocks
template <class P, int MR>
static void tile(const uint8_t* w, TileRows rows, int num_blocks, float (*acc)[32]) {
    all_rows<P, MR>(w, rows, num_blocks, acc);
}
