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
                // the whole group apart: with a constant size its loops unroll
                out.scale[(ptrdiff_t)start * groups + (ptrdiff_t)g * mr + r] =
                    size == kGroup ? quantize_group(from, kGroup, q, factors, offsets, mr) : quantize_group(from, size, q, factors, offsets, mr);
            }
        }
    }
}
