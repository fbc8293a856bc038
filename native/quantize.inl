// Activations to int8. Contract and bit rule: gemm.h. Included by gemm.inl.

// What a row has at one 32-k block; see QuantRows.
static inline void write_block_factors(const int* e, const int32_t* sums, float* factors, int32_t* offsets, int mr) {
    const int c = e[1] - e[0];
    const float unit[2] = {__builtin_bit_cast(float, (127 - e[0]) << 23), __builtin_bit_cast(float, (127 - e[1]) << 23)};
    const float scaled[2] = {unit[0] * (float)sums[0], unit[1] * (float)sums[1]};
    factors[0] = 12582912.0f * unit[0], factors[mr] = 12582912.0f * unit[1];
    factors[2 * mr] = scaled[0], factors[3 * mr] = scaled[1], factors[4 * mr] = scaled[0] + scaled[1];
    offsets[0] = -sums[0], offsets[mr] = -sums[1];
    offsets[2 * mr] = kMaxLeft - c, offsets[3 * mr] = c < 0 ? 1 << (-c - 1) : 0;
}

// One group of `size` k of one row; q, factors and offsets point at the row's first element of the group.
static inline float quantize_group(const float* x, int size, int8_t* q, float* factors, int32_t* offsets, int mr) {
    constexpr int kSlices = kGroup / 16;
    const int num_slices = size / 16;
    alignas(64) float amax[kSlices];
    alignas(64) int8_t bytes[kGroup];
    int e[kSlices];
    int32_t sums[kSlices];
    float largest_value = 0;
    for (int i = 0; i < num_slices; i++) {
        amax[i] = largest(abs(finite_or_zero(load(x + 16 * i))));
        largest_value = amax[i] > largest_value ? amax[i] : largest_value;
    }
    const bool zero = largest_value < 1e-30f;  // the reciprocal would overflow
    const float inverse = zero ? 0 : 127.0f / largest_value;
    for (int i = 0; i < num_slices; i++) {
        // the borrow of the mantissas makes this the floor of log2(largest / amax)
        const uint32_t ratio = (__builtin_bit_cast(uint32_t, largest_value) - __builtin_bit_cast(uint32_t, amax[i])) >> 23;
        e[i] = zero ? 0 : ratio < kMaxExponent ? (int)ratio : kMaxExponent;
        if (i % 2) e[i] = e[i] < e[i - 1] + kMaxLeft ? e[i] : e[i - 1] + kMaxLeft;
    }
    for (int i = 0; i < num_slices; i++) {
        const float factor = inverse * __builtin_bit_cast(float, (127 + e[i]) << 23);
        sums[i] = store_bytes(mul(finite_or_zero(load(x + 16 * i)), set1(factor)), bytes + 16 * i);
    }
    for (int quad = 0; quad < size / 4; quad++) __builtin_memcpy(q + (ptrdiff_t)quad * 4 * mr, bytes + 4 * quad, 4);
    for (int block = 0; block < size / 32; block++)
        write_block_factors(e + 2 * block, sums + 2 * block, factors + block * 5 * mr, offsets + block * 4 * mr, mr);
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
                const ptrdiff_t block = ((ptrdiff_t)start * (k / 32) + (ptrdiff_t)(first / 32) * mr);
                out.scale[(ptrdiff_t)start * groups + (ptrdiff_t)g * mr + r] =
                    quantize_group(x + (ptrdiff_t)m * ldx + first, size, out.q + (ptrdiff_t)start * k + (ptrdiff_t)first * mr + r * 4,
                                   out.factors + block * 5 + r, out.offsets + block * 4 + r, mr);
            }
        }
    }
}
