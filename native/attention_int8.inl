// Paged attention over int8 keys and values. Included by attention.inl, whose exp2_negative() and ranges it shares.
//
// THE BIT RULE. q and the probabilities (times the scales of the values) become 16-bit integers with one scale per row and
// split, as a high and a low byte; the dot products of bytes are exact, and below 2^24, so their order does not matter.

// Sixteen lanes of four bytes, and of int32.
#if defined(__AVX512F__)
constexpr int kByteRows = 12;
struct Bytes {
    __m512i v;
};
struct Dots {
    __m512i v;
};
static inline Bytes load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
static inline Bytes broadcast_bytes(const uint8_t* p) { return {broadcast4((const int8_t*)p)}; }
static inline Dots dots(int32_t x) { return {_mm512_set1_epi32(x)}; }
static inline __attribute__((always_inline)) void dot(Dots& acc, const Bytes& u, const Bytes& s) { dot4(acc.v, u.v, s.v); }
static inline V16 to_float(const Dots& a) { return {_mm512_cvtepi32_ps(a.v)}; }
#elif defined(__AVX2__)
constexpr int kByteRows = 2;
struct Bytes {
    __m256i lo, hi;
};
struct Dots {
    __m256i lo, hi;
};
static inline Bytes load_bytes(const uint8_t* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
static inline Bytes broadcast_bytes(const uint8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return {_mm256_set1_epi32(four), _mm256_set1_epi32(four)};
}
static inline Dots dots(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
// in int16: the instruction for bytes saturates
static inline __m256i dot_half(__m256i u, __m256i s) {
    const __m256i low = _mm256_and_si256(u, _mm256_set1_epi16(255));
    const __m256i even = _mm256_madd_epi16(low, _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    return _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8)));
}
static inline void dot(Dots& acc, const Bytes& u, const Bytes& s) {
    acc.lo = _mm256_add_epi32(acc.lo, dot_half(u.lo, s.lo));
    acc.hi = _mm256_add_epi32(acc.hi, dot_half(u.hi, s.hi));
}
static inline V16 to_float(const Dots& a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
#else
constexpr int kByteRows = 2;
struct Bytes {
    uint8_t v[64];
};
struct Dots {
    int32_t v[16];
};
static inline Bytes load_bytes(const uint8_t* p) {
    Bytes r;
    __builtin_memcpy(r.v, p, 64);
    return r;
}
static inline Bytes broadcast_bytes(const uint8_t* p) {
    Bytes r;
    for (int i = 0; i < 64; i++) r.v[i] = p[i % 4];
    return r;
}
static inline Dots dots(int32_t x) {
    Dots r;
    for (int i = 0; i < 16; i++) r.v[i] = x;
    return r;
}
static inline void dot(Dots& acc, const Bytes& u, const Bytes& s) {
    for (int i = 0; i < 64; i++) acc.v[i / 4] += u.v[i] * (int8_t)s.v[i];
}
static inline V16 to_float(const Dots& a) {
    V16 r;
    for (int i = 0; i < 16; i++) r.v[i] = (float)a.v[i];
    return r;
}
#endif

// integers as 256 * high + low; bias 128 for signed low bytes, 0 for unsigned ones
static inline void store_planes(V16 x, int bias, uint8_t* high, uint8_t* low) {
#if defined(__AVX512F__)
    const __m512i i = _mm512_cvtps_epi32(x.v);
    _mm_storeu_si128((__m128i*)low, _mm512_cvtepi32_epi8(i));
    _mm_storeu_si128((__m128i*)high, _mm512_cvtepi32_epi8(_mm512_srai_epi32(_mm512_add_epi32(i, _mm512_set1_epi32(bias)), 8)));
#else
    float lanes[16];
    store(lanes, round_even(x));
    for (int i = 0; i < 16; i++) {
        const int32_t n = (int32_t)lanes[i];
        low[i] = (uint8_t)n, high[i] = (uint8_t)((n + bias) >> 8);
    }
#endif
}

// The step of integers up to `most` for n values, and its inverse; NaN when one of them is not finite.
static inline float int_scale(const float* x, int n, float most, float* inverse) {
    V16 top = set1(0), broken = set1(0);
    for (int i = 0; i < n; i += 16) {
        const V16 v = load(x + i);
        top = max(top, abs(finite_or_zero(v)));
        broken = add(broken, sub(v, v));
    }
    const float amax = largest(top);
    *inverse = amax < 1e-30f ? 0 : most / amax;
    return (amax < 1e-30f ? 0 : amax / most) + sum(broken);
}

static void store_kv_int8(const float* k, const float* v, int head_dim, int block_size, int slot, uint8_t* k_head,
                          uint8_t* v_head) {
    int8_t bytes[16];
    float inverse;
    float* k_scales = (float*)(k_head + (ptrdiff_t)block_size * head_dim);
    float* v_scales = (float*)(v_head + (ptrdiff_t)block_size * head_dim);
    k_scales[slot] = int_scale(k, head_dim, 127, &inverse);
    uint8_t* k_lane = k_head + (ptrdiff_t)(slot / 16) * head_dim * 16 + slot % 16 * 4;
    for (int d = 0; d < head_dim; d += 16) {
        store_bytes(mul(finite_or_zero(load(k + d)), set1(inverse)), bytes);
        for (int i = 0; i < 16; i++) bytes[i] = (int8_t)(bytes[i] ^ 0x80);  // + 128
        for (int i = 0; i < 16; i += 4) __builtin_memcpy(k_lane + (d + i) * 16, bytes + i, 4);
    }
    v_scales[slot] = int_scale(v, head_dim, 127, &inverse);
    uint8_t* v_lane = v_head + (ptrdiff_t)(slot / 4) * head_dim * 4 + slot % 4;
    for (int d = 0; d < head_dim; d += 16) {
        store_bytes(mul(finite_or_zero(load(v + d)), set1(inverse)), bytes);
        for (int i = 0; i < 16; i++) v_lane[(d + i) * 4] = (uint8_t)bytes[i];
    }
}

// R query rows as bytes; (R, head_dim) planes.
template <int R>
struct ByteQueries {
    alignas(64) uint8_t high[R * kMaxHeadDim], low[R * kMaxHeadDim];
    int32_t high_start[R], low_start[R];  // what the zero point of the keys takes away
    float scale[R];

    ByteQueries(const float* q, int dim) {
        for (int r = 0; r < R; r++) {
            float inverse;
            scale[r] = int_scale(q + (ptrdiff_t)r * dim, dim, 32512, &inverse);
            uint8_t *h = high + r * dim, *l = low + r * dim;
            for (int d = 0; d < dim; d += 16)
                store_planes(mul(finite_or_zero(load(q + (ptrdiff_t)r * dim + d)), set1(inverse)), 128, h + d, l + d);
            int32_t high_sum = 0, low_sum = 0;
            for (int d = 0; d < dim; d++) high_sum += (int8_t)h[d], low_sum += (int8_t)l[d];
            high_start[r] = -128 * high_sum, low_start[r] = -128 * low_sum;
        }
    }
};

// scores[r][lane] of sixteen keys; v and next, as long as k, are fetched meanwhile when there are few rows
template <int R>
static inline void score_bytes(const uint8_t* k, const uint8_t* v, const uint8_t* next, const float* scales, int dim,
                               const ByteQueries<R>& q, float* scores) {
    Dots high[R], low[R];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) high[r] = dots(q.high_start[r]), low[r] = dots(q.low_start[r]);
    for (int d = 0; d < dim; d += 4) {
        const Bytes key = load_bytes(k + d * 16);
        if constexpr (R <= 6) prefetch(v + d * 16), prefetch(next + d * 16);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            dot(high[r], key, broadcast_bytes(q.high + r * dim + d));
            dot(low[r], key, broadcast_bytes(q.low + r * dim + d));
        }
    }
    const V16 key_scale = load(scales);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
        const V16 product = add(mul(to_float(high[r]), set1(256)), to_float(low[r]));
        store(scores + (ptrdiff_t)r * kAttendSplit, mul(mul(product, set1(q.scale[r])), key_scale));
    }
}

// A row's scores of chunks [from, to) become 16-bit weights: its probabilities relative to their maximum, times the
// scales of the values. Returns the step of the weights. visible keys: [begin, end).
static inline float soften_bytes(float* s, const float* v_scales, uint8_t* high, uint8_t* low, int from, int to, int begin,
                                 int end, float cap, float* max_score, float* sum_p) {
    *max_score = mask_scores(s, from, to, begin, end, cap);
    const V16 shift = set1(begin < end ? -*max_score * kLog2e : 0), factor = set1(kLog2e);
    V16 total = set1(0);
    for (int t = from; t < to; t += 16) {
        const V16 p = exp2_negative(fma(load(s + t), factor, shift));
        total = add(total, p);
        // the scale of a token nobody wrote may be anything
        store(s + t, keep_visible(mul(p, load(v_scales + t)), t, begin, end, set1(0)));
    }
    *sum_p = sum(total);
    float inverse;
    const float scale = int_scale(s + from, to - from, 65280, &inverse);
    for (int t = from; t < to; t += 16) store_planes(mul(finite_or_zero(load(s + t)), set1(inverse)), 0, high + t, low + t);
    return scale;
}

template <int R>
struct ByteWeights {
    alignas(64) uint8_t high[R][kAttendSplit], low[R][kAttendSplit];
    float scale[R];
};

// out[r][column + 16 * c + lane]: tokens [begin, end), both multiples of 4, of the split that begins at `first`
template <int R, int C>
static inline void weigh_bytes(const Values& values, int column, const ByteWeights<R>& p, int first, float* out, int dim) {
    Dots high[R][C], low[R][C];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) high[r][c] = dots(0), low[r][c] = dots(0);
    const int size = values.kv.block_size;
    for (int t = values.begin; t < values.end;) {
        const int base = t / size * size, stop = base + size < values.end ? base + size : values.end;
        const uint8_t* block = values.block_at(t);
        for (; t < stop; t += 4) {
            Bytes value[C];
#pragma GCC unroll 2
            for (int c = 0; c < C; c++) value[c] = load_bytes(block + (ptrdiff_t)(t - base) * dim + 4 * (column + 16 * c));
#pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                const Bytes h = broadcast_bytes(p.high[r] + t - first), l = broadcast_bytes(p.low[r] + t - first);
#pragma GCC unroll 2
                for (int c = 0; c < C; c++) dot(high[r][c], h, value[c]), dot(low[r][c], l, value[c]);
            }
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
            const V16 product = add(mul(to_float(high[r][c]), set1(256)), to_float(low[r][c]));
            store(out + (ptrdiff_t)r * dim + column + 16 * c, mul(product, set1(p.scale[r])));
        }
}

template <int R>
static void attend_bytes(const KvView& kv, const AttendRows& rows, int first, int key_begin, int key_end, const Partial& out) {
    alignas(64) float scores[R][kAttendSplit], v_scales[kAttendSplit];
    const int size = kv.block_size, dim = kv.head_dim;
    int low, high, high_of_all;
    if (!key_range(rows, first, R, key_begin, key_end, low, high, high_of_all)) {
        for (int r = first; r < first + R; r++) out.sum[r] = 0;
        return;
    }
    const ByteQueries<R> q(rows.q + (ptrdiff_t)first * dim, dim);
    int t = low;
    for (; t < high; t += 16) {
        const uint8_t* block = kv.layer + kv.block_table[t / size] * kv.block_stride;
        const ptrdiff_t at = (ptrdiff_t)(t % size) * dim, scale_at = (ptrdiff_t)size * dim + t % size * 4;
        const int ahead = t + 16 * 2 * kAheadChunks < high_of_all ? t + 16 * 2 * kAheadChunks : t;
        const uint8_t* next_block = kv.layer + kv.block_table[ahead / size] * kv.block_stride;
        const uint8_t* next = next_block + kv.k_offset + (ptrdiff_t)(ahead % size) * dim;
        const float* k_scales = (const float*)(block + kv.k_offset + scale_at);
        score_bytes<R>(block + kv.k_offset + at, block + kv.v_offset + at, next, k_scales, dim, q, &scores[0][t - key_begin]);
        store(v_scales + t - key_begin, load((const float*)(block + kv.v_offset + scale_at)));
    }
    ByteWeights<R> p;
    for (int r = 0; r < R; r++) {
        const int begin = rows.begin[first + r] < key_begin ? key_begin : rows.begin[first + r];
        const int end = rows.end[first + r] > key_end ? key_end : rows.end[first + r];
        p.scale[r] = soften_bytes(scores[r], v_scales, p.high[r], p.low[r], low - key_begin, t - key_begin, begin - key_begin,
                                  end - key_begin, rows.soft_cap, out.max + first + r, out.sum + first + r);
    }
    float* sums = out.out + (ptrdiff_t)first * dim;
    const Values values{kv, low, (high + 3) / 4 * 4};
    constexpr int C = R <= kByteRows / 2 ? 2 : 1;
    int d = 0;
    for (; d + 16 * C <= dim; d += 16 * C) weigh_bytes<R, C>(values, d, p, key_begin, sums, dim);
    for (; d < dim; d += 16) weigh_bytes<R, 1>(values, d, p, key_begin, sums, dim);
}

template <int R>
static void attend_byte_rows(const KvView& kv, const AttendRows& rows, int first, int count, int key_begin, int key_end,
                             const Partial& out) {
    if (count == R)
        attend_bytes<R>(kv, rows, first, key_begin, key_end, out);
    else if constexpr (R > 1)
        attend_byte_rows<R - 1>(kv, rows, first, count, key_begin, key_end, out);
}

static void attend_int8(const KvView& kv, const AttendRows& rows, int key_begin, int key_end, const Partial& out) {
    for (int first = 0; first < rows.num_rows; first += kByteRows) {
        const int count = rows.num_rows - first < kByteRows ? rows.num_rows - first : kByteRows;
        attend_byte_rows<kByteRows>(kv, rows, first, count, key_begin, key_end, out);
    }
}
