// Products of more than kDirectRows rows for AVX-512 VNNI. Included by gemm.inl.

using RowsTile = void (*)(const uint8_t*, const float*, TileRows, const int32_t*, ptrdiff_t, float (*)[32], const uint8_t*);
template <class P, int MR>
constexpr RowsTile rows_tile_or_none() {
    if constexpr (MR > kDirectRows) return tile_of_rows<P, MR>;
    return nullptr;
}
template <class P>
constexpr RowsTile kRowsTiles[kTileRows] = {
    nullptr, nullptr, nullptr, rows_tile_or_none<P, 4>(), rows_tile_or_none<P, 5>(), rows_tile_or_none<P, 6>(), rows_tile_or_none<P, 7>(),
    rows_tile_or_none<P, 8>(), rows_tile_or_none<P, 9>(), rows_tile_or_none<P, 10>(), rows_tile_or_none<P, 11>(), rows_tile_or_none<P, 12>()};

// Row tiles [begin, end) of the activations, K-blocks [block, block + count).
template <class F>
struct RowBlock {
    const QuantRows* a;
    int begin, end, block, count;
    alignas(64) int32_t numbers[kRowBlockBytes / kRowBytes * 4];

    void set(const QuantRows& rows, int first, int last, int first_block, int num_blocks) {
        a = &rows, begin = first, end = last, block = first_block, count = num_blocks;
        for (int t = begin; t < end; t++) {
            int mr;
            const TileRows of_tile = tile_rows(rows, t, block, mr);
            write_numbers<F>(of_tile, mr, count, numbers_of(t));
        }
    }
    int32_t* numbers_of(int t) { return numbers + (ptrdiff_t)(tile_start(a->num_rows, t) - tile_start(a->num_rows, begin)) * 4 * count; }
};

// While the last tile runs, the packed weights of the next chunk are fetched; before that, the rows of the next tile. One
// tile for both: its 9 KB of code must share the instruction cache with that of the tile one row shorter.
template <class F>
static void chunk_product(const PanelChunk& c, RowBlock<F>& block) {
    alignas(64) float scales[kChunkBlocks * kScaleFloats<F>];
    write_scales<F>(c.data, c.count, scales);
    for (int t = block.begin; t < block.end; t++) {
        int mr;
        const TileRows rows = tile_rows(*block.a, t, c.block, mr);
        const uint8_t* next = t + 1 < block.end ? (const uint8_t*)rows.q + (ptrdiff_t)mr * block.a->k : c.next;
        const RowsTile run = kRowsTiles<F>[mr - 1];
        on_rows(c, tile_start(block.a->num_rows, t), mr,
                [&](float (*acc)[32]) { run(c.data + F::header_bytes, scales, rows, block.numbers_of(t), c.count, acc, next); });
    }
}
