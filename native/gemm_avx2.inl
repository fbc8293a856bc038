// The tile for AVX2. Included by gemm.inl.

// dot[r] += R rows with 8 columns over one slice of 16 k; quad_at(i) gives the 32 bytes of quad i, a is at the slice's
// first quad. Pairs are summed in int16 as long as they fit, then widened.
template <class P, int R, class Load>
static inline void add_slice(Load quad_at, const int8_t* a, int mr, __m256i (&dot)[R]) {
    constexpr bool kSigned = P::zero == 128;
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int first = 0; first < 4; first += P::run) {
        __m256i pairs[R];
#pragma GCC unroll 4
        for (int i = 0; i < P::run; i++) {
            __m256i u = quad_at(first + i);
            if constexpr (kSigned) u = _mm256_xor_si256(u, _mm256_set1_epi8((char)0x80));
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                int32_t four;
                __builtin_memcpy(&four, a + (ptrdiff_t)(first + i) * mr * 4 + r * 4, 4);
                const __m256i x = _mm256_set1_epi32(four);
                const __m256i two = kSigned ? _mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(x, u)) : _mm256_maddubs_epi16(u, x);
                pairs[r] = i == 0 ? two : _mm256_add_epi16(pairs[r], two);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(pairs[r], ones));
    }
}

// Dots of R rows with 8 columns over sub-block s.
template <class P, int R>
static inline void sub_block_dots(const uint8_t* column, int s, const int8_t* a, const int32_t* o, int mr, __m256i (&dot)[R]) {
    constexpr int kSlices = P::sub / 16, kZeroShift = P::zero ? __builtin_ctz(P::zero ? P::zero : 1) : 0;
    constexpr bool kOffset = P::zero != 0 && P::zero != 128;
    for (int slice = 0; slice < kSlices; slice++) {
        const int index = s * kSlices + slice;
        auto quad_at = [&](int quad) {
            quad += index * 4;
            if constexpr (P::bits == 8) return _mm256_loadu_si256((const __m256i*)(column + quad * 128));
            __m256i x = _mm256_loadu_si256((const __m256i*)(column + quad / 2 * 128));
            if (quad % 2) x = _mm256_srli_epi16(x, 4);
            return _mm256_and_si256(x, _mm256_set1_epi8(15));
        };
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const __m256i offset = kOffset ? _mm256_slli_epi32(_mm256_set1_epi32(o[index * mr + r]), kZeroShift) : _mm256_setzero_si256();
            dot[r] = slice == 0 ? offset : _mm256_add_epi32(dot[r], offset);
        }
        add_slice<P, R>(quad_at, a + (ptrdiff_t)index * 16 * mr, mr, dot);
        if (kSlices == 2 && slice == 0)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const __m256i rounded = _mm256_add_epi32(dot[r], _mm256_set1_epi32(o[3 * mr + r]));
                dot[r] = _mm256_srav_epi32(_mm256_slli_epi32(rounded, kMaxLeft), _mm256_set1_epi32(o[2 * mr + r]));
            }
    }
}

// acc[r] += R of the tile's mr rows
template <class P, int R>
static void some_rows(const uint8_t* w, TileRows rows, int mr, int num_blocks, float (*acc)[32]) {
    constexpr int kSlices = P::sub / 16;
    float part[R][32];
    for (int block = 0; block < num_blocks; block++) {
        const uint8_t *header = w + block / 8 * P::chunk_bytes, *at = header + P::header_bytes + block % 8 * P::block_bytes;
        const int8_t* a = rows.q + (ptrdiff_t)block * 32 * mr;
        const float* f = rows.factors + (ptrdiff_t)block * 5 * mr;
        const int32_t* o = rows.offsets + (ptrdiff_t)block * 4 * mr;
        if (block % (kGroup / 32) == 0)
            for (int r = 0; r < R; r++) store(part[r], set1(0)), store(part[r] + 16, set1(0));
        for (int s = 0; s < 32 / P::sub; s++)
            for (int h = 0; h < 2; h++) {
                const V16 w_scale = P::scale(header, at, s, h), w_min = P::has_min ? P::min(header, at, s, h) : set1(0);
                __m256i dot[2][R];
                for (int eight = 0; eight < 2; eight++)
                    sub_block_dots<P, R>(at + P::scale_bytes + h * 64 + eight * 32, s, a, o, mr, dot[eight]);
                for (int r = 0; r < R; r++) {
                    const V16 unit = set1(unit_of(f[(kSlices == 2 ? 1 : s) * mr + r]));
                    const V16 value = {_mm256_cvtepi32_ps(dot[0][r]), _mm256_cvtepi32_ps(dot[1][r])};
                    V16 y = fma(value, mul(w_scale, unit), load(part[r] + 16 * h));
                    if constexpr (P::has_min) y = fma(w_min, set1(f[(kSlices == 2 ? 4 : 2 + s) * mr + r]), y);
                    store(part[r] + 16 * h, y);
                }
            }
        if (block % (kGroup / 32) == kGroup / 32 - 1 || block == num_blocks - 1)
            for (int r = 0; r < R; r++) {
                const V16 scale = set1(rows.scale[(ptrdiff_t)(block / (kGroup / 32)) * mr + r]);
                for (int h = 0; h < 32; h += 16) store(acc[r] + h, fma(load(part[r] + h), scale, load(acc[r] + h)));
            }
    }
}

constexpr int kDirectRows = 12;

// acc[r] += product of the tile's rows with num_blocks K-blocks of a panel; w is at a multiple of 8 blocks
template <class P, int MR>
static void tile(const uint8_t* w, TileRows rows, int num_blocks, float (*acc)[32]) {
    int r = 0;
    auto rest = [&] { return TileRows{rows.q + 4 * r, rows.scale + r, rows.factors + r, rows.offsets + r}; };
    for (; r + 4 <= MR; r += 4) some_rows<P, 4>(w, rest(), MR, num_blocks, acc + r);
    if constexpr (MR % 4 != 0) some_rows<P, MR % 4>(w, rest(), MR, num_blocks, acc + r);
}
