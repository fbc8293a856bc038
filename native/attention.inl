// Paged attention: some query rows of one sequence against one kv head, one split of the keys at a time.
//
// THE BIT RULE. q and the probabilities are rounded to bf16; every dot product adds pairs to one fp32 accumulator, in
// ascending order, each pair as vdpbf16ps does: fma of the odd element, then of the even one. Each row's operations are a
// function of its own [begin, end) alone: keys it may not see enter as p = 0, which changes no bit.

// Pairs of bf16 in sixteen lanes, as plain FMAs see them.
struct PairsFma {
    V16 even, odd;
    static inline PairsFma load(const uint16_t* p) {
        PairsFma r;
        load_bf16_pairs(p, r.even, r.odd);
        return r;
    }
    static inline PairsFma broadcast(uint32_t pair) {
        return {set1(__builtin_bit_cast(float, pair << 16)), set1(__builtin_bit_cast(float, pair & 0xFFFF0000u))};
    }
    static inline PairsFma load_even(const uint16_t* p) { return {load(p).even, set1(0)}; }
    static inline void dot(V16& acc, const PairsFma& a, const PairsFma& b) {
        acc = fma(a.even, b.even, fma(a.odd, b.odd, acc));
    }
#if defined(__AVX512F__)
    static constexpr int kRows = 12, kChunks = 2;
#else
    static constexpr int kRows = 4, kChunks = 1;
#endif
};

#if defined(__AVX512F__)
// As the processor's own instruction sees them; asm, because GCC 12 spills accumulators of the intrinsic.
struct PairsBf16 {
    __m512i pairs;
    static inline PairsBf16 load(const uint16_t* p) { return {_mm512_loadu_si512(p)}; }
    static inline PairsBf16 broadcast(uint32_t pair) { return {_mm512_set1_epi32((int)pair)}; }
    static inline PairsBf16 load_even(const uint16_t* p) {
        return {_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(0xFFFF))};
    }
    static inline __attribute__((always_inline)) void dot(V16& acc, const PairsBf16& a, const PairsBf16& b) {
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc.v) : "v"(a.pairs), "v"(b.pairs));
    }
    static constexpr int kRows = 12, kChunks = 2;
};
#endif

static inline uint32_t pair_at(const uint16_t* p) {
    uint32_t pair;
    __builtin_memcpy(&pair, p, 4);
    return pair;
}

static inline void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }

// scores[r][16 * c + lane] = q[r] . k[c], q (R, head_dim) bf16. With few rows memory is the limit, and blocks are too
// short for the processor's own prefetch: v[c] (the chunk's values, as long as its keys) and next[c] are fetched meanwhile.
template <class P, int R, int C>
static inline void score_chunks(const uint16_t* const* k, const uint16_t* const* v, const uint16_t* const* next,
                                int head_dim, const uint16_t* q, float* scores) {
    V16 acc[R][C];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) acc[r][c] = set1(0);
    for (int d = 0; d < head_dim; d += 2) {
        P key[C];
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
            key[c] = P::load(k[c] + d * 16);
            if constexpr (R <= 6) prefetch(v[c] + d * 16), prefetch(next[c] + d * 16);
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const P query = P::broadcast(pair_at(q + (ptrdiff_t)r * head_dim + d));
#pragma GCC unroll 2
            for (int c = 0; c < C; c++) P::dot(acc[r][c], query, key[c]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) store(scores + (ptrdiff_t)r * kAttendSplit + 16 * c, acc[r][c]);
}

// The keys of one split that some row sees, as token pairs: [begin, end), begin even.
struct Values {
    const KvView& kv;
    int begin, end;
    inline const uint8_t* block_at(int position) const {
        return kv.layer + kv.block_table[position / kv.block_size] * kv.block_stride + kv.v_offset;
    }
};

// out[r][16 * d + lane] = sum over t of p[r][t - first] * v[t], tokens in ascending order
template <class P, int R, int D>
static inline void weigh_values(const Values& values, int column, const uint16_t* p, int first, float* out, int head_dim) {
    V16 acc[R][D];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int d = 0; d < D; d++) acc[r][d] = set1(0);
    const int size = values.kv.block_size;
    for (int t = values.begin; t < values.end;) {
        const int base = t / size * size, stop = base + size < values.end ? base + size : values.end;
        const uint16_t* block = (const uint16_t*)values.block_at(t);
        for (; t < stop; t += 2) {
            P value[D];
#pragma GCC unroll 2
            for (int d = 0; d < D; d++) {
                const uint16_t* pairs = block + (ptrdiff_t)(t - base) * head_dim + 2 * (column + 16 * d);
                // past the end lies a token nobody wrote, perhaps NaN
                value[d] = t + 1 < values.end ? P::load(pairs) : P::load_even(pairs);
            }
#pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                const P weight = P::broadcast(pair_at(p + (ptrdiff_t)r * kAttendSplit + t - first));
#pragma GCC unroll 2
                for (int d = 0; d < D; d++) P::dot(acc[r][d], weight, value[d]);
            }
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int d = 0; d < D; d++) store(out + (ptrdiff_t)r * head_dim + column + 16 * d, acc[r][d]);
}

// 2^x for x <= 0, relative error 3e-6, far below bf16's; 0 below -126.
static inline V16 exp2_negative(V16 x) {
    const V16 y = min(max(x, set1(-126.0f)), set1(1.0f)), n = round_even(y), r = sub(y, n);
    V16 p = fma(r, set1(0.00958285f), set1(0.05590644f));
    p = fma(p, r, set1(0.24024099f));
    p = fma(p, r, set1(0.69312419f));
    p = fma(p, r, set1(1.0f));
    return zero_below(x, -126.0f, scale_by_pow2(p, n));
}

constexpr float kLog2e = 1.44269504f;

// lanes of the sixteen keys from t on that are in [begin, end), b in the others
static inline V16 keep_visible(V16 x, int t, int begin, int end, V16 b) {
    if (begin <= t && end >= t + 16) return x;
    const int low = begin - t < 0 ? 0 : (begin - t > 16 ? 16 : begin - t);
    return keep_lanes(x, low, end - t < low ? low : (end - t > 16 ? 16 : end - t), b);
}

// Soft cap, and -inf for keys outside [begin, end), on the scores of chunks [from, to); returns the largest.
static inline float mask_scores(float* s, int from, int to, int begin, int end, float cap) {
    const V16 minus_inf = set1(-__builtin_inff());
    V16 top = minus_inf;
    for (int t = from; t < to; t += 16) {
        V16 x = load(s + t);
        if (cap != 0) x = soft_cap(x, cap);
        x = keep_visible(x, t, begin, end, minus_inf);
        store(s + t, x);
        top = max(top, x);
    }
    return largest(top);
}

// A row's scores of chunks [from, to) of one split become bf16 probabilities relative to their maximum.
// visible keys: [begin, end) inside the split, may be empty.
static inline void soften(float* s, uint16_t* p, int from, int to, int begin, int end, float cap, float* max_score,
                          float* sum_p) {
    *max_score = mask_scores(s, from, to, begin, end, cap);
    const V16 shift = set1(begin < end ? -*max_score * kLog2e : 0), factor = set1(kLog2e);
    V16 total = set1(0);
    for (int t = from; t < to; t += 16)  // -inf becomes 0
        total = add(total, store_bf16_positive(p + t, exp2_negative(fma(load(s + t), factor, shift))));
    *sum_p = sum(total);
}

template <int N>
struct Count {
    static constexpr int value = N;
};
constexpr int kAheadChunks = 8;  // keys fetched ahead

// The keys of [key_begin, key_end) that some of `count` rows sees: [low, high), low at a chunk; false when there are none.
static inline bool key_range(const AttendRows& rows, int first, int count, int key_begin, int key_end, int& low, int& high,
                             int& high_of_all) {
    low = key_end, high_of_all = key_begin;
    for (int r = first; r < first + count; r++) {
        low = rows.begin[r] < low ? rows.begin[r] : low;
        high_of_all = rows.end[r] > high_of_all ? rows.end[r] : high_of_all;
    }
    low = (low < key_begin ? key_begin : low) / 16 * 16;
    high = high_of_all > key_end ? key_end : high_of_all;
    return low < high;
}

template <class P, int R>
static void attend_group(const KvView& kv, const AttendRows& rows, int first, int key_begin, int key_end,
                         const Partial& out) {
    alignas(64) float scores[R][kAttendSplit];
    alignas(64) uint16_t p[R][kAttendSplit], q[R * kMaxHeadDim];
    const int size = kv.block_size, dim = kv.head_dim;
    int low, high, high_of_all;
    if (!key_range(rows, first, R, key_begin, key_end, low, high, high_of_all)) {
        for (int r = first; r < first + R; r++) out.sum[r] = 0;
        return;
    }
    for (int i = 0; i < R * dim; i += 16) store_bf16(q + i, load(rows.q + (ptrdiff_t)first * dim + i));
    auto chunk_at = [&](int t, ptrdiff_t offset) {
        return (const uint16_t*)(kv.layer + kv.block_table[t / size] * kv.block_stride + offset) + (ptrdiff_t)(t % size) * dim;
    };
    int t = low;
    auto score = [&](auto chunks) {
        constexpr int C = decltype(chunks)::value;
        const uint16_t *k[C], *v[C], *next[C];
        for (int c = 0; c < C; c++) {
            const int at = t + 16 * c, ahead = at + 16 * kAheadChunks;
            k[c] = chunk_at(at, kv.k_offset);
            v[c] = chunk_at(at, kv.v_offset);
            next[c] = chunk_at(ahead < high_of_all ? ahead : at, kv.k_offset);
        }
        score_chunks<P, R, C>(k, v, next, dim, q, &scores[0][t - key_begin]);
        t += 16 * C;
    };
    while (P::kChunks == 2 && t + 16 < high) score(Count<P::kChunks>{});
    while (t < high) score(Count<1>{});
    for (int r = 0; r < R; r++) {
        const int begin = rows.begin[first + r] < key_begin ? key_begin : rows.begin[first + r];
        const int end = rows.end[first + r] > key_end ? key_end : rows.end[first + r];
        soften(scores[r], p[r], low - key_begin, t - key_begin, begin - key_begin, end - key_begin, rows.soft_cap,
               out.max + first + r, out.sum + first + r);
    }
    float* sums = out.out + (ptrdiff_t)first * dim;
    const Values values{kv, low, high};
    int d = 0;
    for (; d + 16 * P::kChunks <= dim; d += 16 * P::kChunks)
        weigh_values<P, R, P::kChunks>(values, d, p[0], key_begin, sums, dim);
    for (; d < dim; d += 16) weigh_values<P, R, 1>(values, d, p[0], key_begin, sums, dim);
}

// Runs attend_group for `count` rows, a number known at compile time only inside.
template <class P, int R>
static void attend_count(const KvView& kv, const AttendRows& rows, int first, int count, int key_begin, int key_end,
                         const Partial& out) {
    if (count == R)
        attend_group<P, R>(kv, rows, first, key_begin, key_end, out);
    else if constexpr (R > 1)
        attend_count<P, R - 1>(kv, rows, first, count, key_begin, key_end, out);
}

template <class P>
static void attend(const KvView& kv, const AttendRows& rows, int key_begin, int key_end, const Partial& out) {
    for (int first = 0; first < rows.num_rows; first += P::kRows) {
        const int count = rows.num_rows - first < P::kRows ? rows.num_rows - first : P::kRows;
        attend_count<P, P::kRows>(kv, rows, first, count, key_begin, key_end, out);
    }
}

static void merge(const Partial& total, const Partial& part, int num_rows, int head_dim) {
    for (int r = 0; r < num_rows; r++) {
        if (part.sum[r] == 0) continue;  // saw no key
        float *o = total.out + (ptrdiff_t)r * head_dim, *p = part.out + (ptrdiff_t)r * head_dim;
        if (total.sum[r] == 0) {
            total.max[r] = part.max[r];
            total.sum[r] = part.sum[r];
            __builtin_memcpy(o, p, sizeof(float) * (size_t)head_dim);
            continue;
        }
        const float top = part.max[r] > total.max[r] ? part.max[r] : total.max[r];
        const float keep = exp1(total.max[r] - top), take = exp1(part.max[r] - top);
        total.max[r] = top;
        total.sum[r] = total.sum[r] * keep + part.sum[r] * take;
        for (int d = 0; d < head_dim; d += 16)
            store(o + d, add(mul(load(o + d), set1(keep)), mul(load(p + d), set1(take))));
    }
}

#include "attention_int8.inl"
