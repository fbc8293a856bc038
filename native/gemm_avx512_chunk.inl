// Products of more than kDirectRows rows for AVX-512 VNNI. Included by gemm.inl.

using RowsTile = void (*)(const uint8_t*, const float*, TileRows, const int32_t*, ptrdiff_t, float (*)[32], const uint8_t*);
// more than kDirectRows rows are cut into tiles of 6 and more
static_assert(kDirectRows >= 5 && kTileRows == 12);
template <class P>
constexpr RowsTile kRowsTiles[kTileRows] = {
    nullptr, nullptr, nullptr, nullptr, nullptr, tile_of_rows<P, 6>, tile_of_rows<P, 7>, tile_of_rows<P, 8>,
    tile_of_rows<P, 9>, tile_of_rows<P, 10>, tile_of_rows<P, 11>, tile_of_rows<P, 12>};

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
    int32_t* numbers_of(int t) {
        return numbers + (ptrdiff_t)(tile_start(a->num_rows, t) - tile_start(a->num_rows, begin)) * 4 * count;
    }
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
