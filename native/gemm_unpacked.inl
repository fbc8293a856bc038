// Products of many rows where the tile wants its weights unpacked. Included by gemm.inl.

// A chunk of 8 K-blocks unpacked for many row tiles: per block fp32 scale[32 / Sub][32], (fp32 min[32 / Sub][32]),
// then quants as the 8-bit formats have them.
template <int Zero, bool HasMin, int Sub, int Run>
struct Unpacked {
    static constexpr int bits = 8, zero = Zero, sub = Sub, run = Run;
    static constexpr bool has_min = HasMin, packed = false, magic = Zero < 128;
    static constexpr int header_bytes = 0, scale_bytes = 128 * (32 / Sub) * (1 + HasMin);
    static constexpr int block_bytes = scale_bytes + 1024, chunk_bytes = 8 * block_bytes;

    static inline V16 scale(const uint8_t*, const uint8_t* block, int sub_index, int half) {
        return load((const float*)block + 32 * sub_index + 16 * half);
    }
    static inline V16 min(const uint8_t*, const uint8_t* block, int sub_index, int half) {
        return load((const float*)block + 32 * (32 / Sub + sub_index) + 16 * half);
    }
};
template <class F>
using UnpackedOf = Unpacked<F::zero, F::has_min, F::sub, F::run>;

// 64 bytes of quants: the low and the high nibbles of 64 bytes
static inline void unpack_line(const uint8_t* in, uint8_t* low, uint8_t* high) {
    for (int i = 0; i < 64; i++) low[i] = in[i] & 15, high[i] = in[i] >> 4;
}

// The quants of one K-block as the 8-bit formats have them.
template <class F>
static inline void unpack_quants(const uint8_t* quants, uint8_t* to) {
    if constexpr (F::bits == 8) {
        for (int i = 0; i < 1024; i += 64) __builtin_memcpy(to + i, quants + i, 64);  // in line
    } else {
#pragma GCC unroll 4
        for (int pair = 0; pair < 4; pair++)
            for (int h = 0; h < 2; h++)
                unpack_line(quants + pair * 128 + h * 64, to + pair * 256 + h * 64, to + pair * 256 + 128 + h * 64);
    }
}

template <class F>
static void unpack_chunk(const uint8_t* header, int num_blocks, uint8_t* out) {
    using U = UnpackedOf<F>;
    const uint8_t* block = header + F::header_bytes;
    for (int b = 0; b < num_blocks; b++, block += F::block_bytes, out += U::block_bytes) {
        float* scales = (float*)out;
        for (int s = 0; s < 32 / F::sub; s++)
            for (int h = 0; h < 2; h++) {
                store(scales + 32 * s + 16 * h, F::scale(header, block, s, h));
                if constexpr (F::has_min) store(scales + 32 * (32 / F::sub + s) + 16 * h, F::min(header, block, s, h));
            }
        unpack_quants<F>(block + F::scale_bytes, out + U::scale_bytes);
    }
}

// Row tiles [begin, end) of the activations.
template <class F>
struct RowBlock {
    const QuantRows* a;
    int begin, end;
    void set(const QuantRows& rows, int first, int last, int, int) { a = &rows, begin = first, end = last; }
};

template <class F>
static void chunk_product(const PanelChunk& c, const RowBlock<F>& block) {
    using U = UnpackedOf<F>;
    alignas(64) uint8_t chunk[kChunkBlocks * U::block_bytes];
    const uint8_t* data = c.data;
    for (int i = 0; i < c.count; i += 8, data += F::chunk_bytes)
        unpack_chunk<F>(data, c.count - i < 8 ? c.count - i : 8, chunk + i * U::block_bytes);
    for (int t = block.begin; t < block.end; t++) {
        int mr;
        const TileRows rows = tile_rows(*block.a, t, c.block, mr);
        on_rows(c, tile_start(block.a->num_rows, t), mr,
                [&](float (*acc)[32]) { kTiles<U>[mr - 1](chunk, rows, c.count, acc); });
    }
}
