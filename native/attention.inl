// Paged attention: some query rows of one sequence against one kv head, online softmax block by block.
// Each row's operations and their order are a function of its own [begin, end) and of the block size alone: keys a row
// may not see enter as p = 0, which changes no bit.

#if defined(__AVX512F__)
constexpr int kRowGroup = 8, kChunks = 2, kDims = 2;  // 16 accumulators
#else
constexpr int kRowGroup = 4, kChunks = 1, kDims = 1;
#endif

// scores[r][16 * c + lane] = q[r] . k, dims in ascending order in one accumulator
template <int R, int C>
static inline void score_chunks(const uint16_t* k, int head_dim, const float* q, float* scores, int ld_scores) {
    V16 acc[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) acc[r][c] = set1(0);
    for (int d = 0; d < head_dim; d += 2) {
        V16 even[C], odd[C];
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) load_bf16_pairs(k + (ptrdiff_t)c * head_dim * 16 + d * 16, even[c], odd[c]);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            V16 q0 = set1(q[(ptrdiff_t)r * head_dim + d]), q1 = set1(q[(ptrdiff_t)r * head_dim + d + 1]);
#pragma GCC unroll 2
            for (int c = 0; c < C; c++) acc[r][c] = fma(odd[c], q1, fma(even[c], q0, acc[r][c]));
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) store(scores + (ptrdiff_t)r * ld_scores + 16 * c, acc[r][c]);
}

// out[r] += sum over t in [begin, end) of p[r][t] * v[t], tokens in ascending order
template <int R, int D>
static inline void weigh_values(const uint16_t* v, int head_dim, int begin, int end, const float* p, int ld_p,
                                float* out) {
    V16 acc[R][D];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int d = 0; d < D; d++) acc[r][d] = load(out + (ptrdiff_t)r * head_dim + 16 * d);
    for (int t = begin; t < end; t++) {
        V16 value[D];
#pragma GCC unroll 2
        for (int d = 0; d < D; d++) value[d] = load_bf16(v + (ptrdiff_t)t * head_dim + 16 * d);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            V16 weight = set1(p[(ptrdiff_t)r * ld_p + t]);
#pragma GCC unroll 2
            for (int d = 0; d < D; d++) acc[r][d] = fma(weight, value[d], acc[r][d]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int d = 0; d < D; d++) store(out + (ptrdiff_t)r * head_dim + 16 * d, acc[r][d]);
}

// Turns a row's scores of one block into probabilities in place and folds them into the running softmax.
// visible keys: [begin, end) inside the block, may be empty.
static inline void fold_block(float* s, int block_size, int begin, int end, float soft_cap_value, float* max_seen,
                              float* sum_seen, float* out, int head_dim) {
    const V16 minus_inf = set1(-__builtin_inff());
    V16 top = minus_inf;
    for (int t = 0; t < block_size; t += 16) {
        int from = begin - t < 0 ? 0 : (begin - t > 16 ? 16 : begin - t), to = end - t > 16 ? 16 : (end - t < from ? from : end - t);
        V16 x = load(s + t);
        if (soft_cap_value != 0) x = soft_cap(x, soft_cap_value);
        x = keep_lanes(x, from, to, minus_inf);
        store(s + t, x);
        top = max(top, x);
    }
    float block_max = largest(top);
    if (block_max > *max_seen) {
        V16 factor = exp(set1(*max_seen - block_max));
        float lanes[16];
        store(lanes, factor);
        *sum_seen = *sum_seen * lanes[0];
        for (int d = 0; d < head_dim; d += 16) store(out + d, mul(load(out + d), factor));
        *max_seen = block_max;
    }
    if (begin >= end) {
        for (int t = 0; t < block_size; t += 16) store(s + t, set1(0));
        return;
    }
    V16 total = set1(0), shift = set1(*max_seen);
    for (int t = 0; t < block_size; t += 16) {
        V16 p = exp(sub(load(s + t), shift));  // -inf becomes 0
        store(s + t, p);
        total = add(total, p);
    }
    *sum_seen = *sum_seen + sum(total);
}

template <int R>
static void attend_group(const KvView& kv, const AttendRows& rows, int first, int key_begin, int key_end,
                         const Partial& out) {
    constexpr int kMaxBlock = 256;
    alignas(64) float scores[R][kMaxBlock];
    const int size = kv.block_size, dim = kv.head_dim;
    const float* q = rows.q + (ptrdiff_t)first * dim;
    float* acc = out.out + (ptrdiff_t)first * dim;
    int low = key_end, high = key_begin;
    for (int r = first; r < first + R; r++) {
        low = rows.begin[r] < low ? rows.begin[r] : low;
        high = rows.end[r] > high ? rows.end[r] : high;
        out.max[r] = -__builtin_inff();
        out.sum[r] = 0;
    }
    __builtin_memset(acc, 0, sizeof(float) * R * (size_t)dim);
    low = low < key_begin ? key_begin : low;
    high = high > key_end ? key_end : high;
    for (int block = low / size; block * size < high; block++) {
        const int base = block * size;
        const uint16_t* data = kv.layer + kv.block_table[block] * kv.block_stride;
        const uint16_t *k = data + kv.k_offset, *v = data + kv.v_offset;
        int t = 0;
        for (; t + 16 * kChunks <= size; t += 16 * kChunks)
            score_chunks<R, kChunks>(k + (ptrdiff_t)t * dim, dim, q, &scores[0][t], kMaxBlock);
        for (; t < size; t += 16) score_chunks<R, 1>(k + (ptrdiff_t)t * dim, dim, q, &scores[0][t], kMaxBlock);
        for (int r = 0; r < R; r++) {
            int begin = rows.begin[first + r] < key_begin ? key_begin : rows.begin[first + r];
            int end = rows.end[first + r] > key_end ? key_end : rows.end[first + r];
            begin = begin - base < 0 ? 0 : begin - base;
            end = end - base > size ? size : end - base;
            fold_block(scores[r], size, begin, end, rows.soft_cap, out.max + first + r, out.sum + first + r,
                       acc + (ptrdiff_t)r * dim, dim);
        }
        const int begin = low - base < 0 ? 0 : low - base, end = high - base > size ? size : high - base;
        int d = 0;
        for (; d + 16 * kDims <= dim; d += 16 * kDims)
            weigh_values<R, kDims>(v + d, dim, begin, end, &scores[0][0], kMaxBlock, acc + d);
        for (; d < dim; d += 16) weigh_values<R, 1>(v + d, dim, begin, end, &scores[0][0], kMaxBlock, acc + d);
    }
}

static void attend(const KvView& kv, const AttendRows& rows, int key_begin, int key_end, const Partial& out) {
    for (int first = 0; first < rows.num_rows; first += kRowGroup) {
        int count = rows.num_rows - first < kRowGroup ? rows.num_rows - first : kRowGroup;
        switch (count) {
            case 1: attend_group<1>(kv, rows, first, key_begin, key_end, out); break;
            case 2: attend_group<2>(kv, rows, first, key_begin, key_end, out); break;
            case 3: attend_group<3>(kv, rows, first, key_begin, key_end, out); break;
            case 4: attend_group<4>(kv, rows, first, key_begin, key_end, out); break;
#if defined(__AVX512F__)
            case 5: attend_group<5>(kv, rows, first, key_begin, key_end, out); break;
            case 6: attend_group<6>(kv, rows, first, key_begin, key_end, out); break;
            case 7: attend_group<7>(kv, rows, first, key_begin, key_end, out); break;
            case 8: attend_group<8>(kv, rows, first, key_begin, key_end, out); break;
#endif
        }
    }
}

static void merge(const Partial& total, const Partial& part, int num_rows, int head_dim) {
    for (int r = 0; r < num_rows; r++) {
        if (part.sum[r] == 0) continue;  // saw no key
        float top = part.max[r] > total.max[r] ? part.max[r] : total.max[r];
        float keep = exp1(total.max[r] - top), take = exp1(part.max[r] - top);
        float *o = total.out + (ptrdiff_t)r * head_dim, *p = part.out + (ptrdiff_t)r * head_dim;
        total.max[r] = top;
        total.sum[r] = total.sum[r] * keep + part.sum[r] * take;
        for (int d = 0; d < head_dim; d += 16)
            store(o + d, add(mul(load(o + d), set1(keep)), mul(load(p + d), set1(take))));
    }
}
