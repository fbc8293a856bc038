// Tiles of up to 12 rows x 32 columns. Contract and bit rule: gemm.h. Included inside the ISA's namespace after vec.inl.

static inline float half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) {
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    return __builtin_bit_cast(float, sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13);
}

// 16 fp16, u8 or s8 as fp32
static inline V16 load_half(const uint8_t* p) {
#if defined(__AVX512F__)
    return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))};
#elif defined(__AVX2__)
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 16)))};
#else
    V16 r;
    for (int i = 0; i < 16; i++) r.v[i] = half_to_float((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
    return r;
#endif
}
static inline V16 load_u8(const uint8_t* p) {
#if defined(__AVX512F__)
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)))};
#elif defined(__AVX2__)
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p))),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8))))};
#else
    V16 r;
    for (int i = 0; i < 16; i++) r.v[i] = p[i];
    return r;
#endif
}
static inline V16 load_s8(const uint8_t* p) {
#if defined(__AVX512F__)
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
#elif defined(__AVX2__)
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8))))};
#else
    V16 r;
    for (int i = 0; i < 16; i++) r.v[i] = (int8_t)p[i];
    return r;
#endif
}

#include "quantize.inl"

// One integer format as the file has it, known at compile time. `run` is for AVX2: how many products of two pairs one
// int16 holds, 2 * max * 127 * run <= 32767.
template <int Bits, int Zero, bool HasMin, int Sub, bool Super, int MaxValue>
struct Packed {
    static constexpr int bits = Bits, zero = Zero, sub = Sub, run = MaxValue <= 31 ? 4 : MaxValue <= 63 ? 2 : 1;
    static constexpr bool has_min = HasMin, packed = true, magic = MaxValue < 255;
    static constexpr int header_bytes = Super ? 64 * (1 + HasMin) : 0;
    static constexpr int scale_bytes = !Super || Sub == 16 ? 64 * (1 + HasMin) : 64;
    static constexpr int block_bytes = scale_bytes + Bits * 128;
    static constexpr int chunk_bytes = header_bytes + 8 * block_bytes;

    // scale and minimum of 16 columns of a sub-block, exact in fp32
    static inline V16 scale(const uint8_t* header, const uint8_t* block, int sub_index, int half) {
        if constexpr (!Super) return load_half(block + 32 * half);
        const uint8_t* small = block + 32 * sub_index + 16 * half;
        return mul(load_half(header + 32 * half), Sub == 16 && !HasMin ? load_s8(small) : load_u8(small));
    }
    static inline V16 min(const uint8_t* header, const uint8_t* block, int sub_index, int half) {
        if constexpr (!Super) return load_half(block + 64 + 32 * half);
        const uint8_t* small = block + (Sub == 16 ? 64 + 32 * sub_index : 32) + 16 * half;
        return mul(INFERD_ISA_NS::sub(set1(0), load_half(header + 64 + 32 * half)), load_u8(small));
    }
};

// What a tile reads of its rows; layout as in QuantRows, from the tile's first row and block.
struct TileRows {
    const int8_t* q;
    const float* scale;
    const float* factors;
    const int32_t* offsets;
};

// 2^-e from 1.5 * 2^23 * 2^-e
static inline float unit_of(float magic) {
    return __builtin_bit_cast(float, (__builtin_bit_cast(int32_t, magic) & 0x7F800000) - (23 << 23));
}

// The caller's rows of one panel: mr rows of `columns` floats, ld apart.
static inline void load_rows(float (*acc)[32], const float* out, ptrdiff_t ld, int mr, int columns) {
    for (int r = 0; r < mr; r++, out += ld) {
        if (columns == 32) store(acc[r], load(out)), store(acc[r] + 16, load(out + 16));
        else for (int c = 0; c < columns; c++) acc[r][c] = out[c];
    }
}
static inline void store_rows(const float (*acc)[32], float* out, ptrdiff_t ld, int mr, int columns) {
    for (int r = 0; r < mr; r++, out += ld) {
        if (columns == 32) store(out, load(acc[r])), store(out + 16, load(acc[r] + 16));
        else for (int c = 0; c < columns; c++) out[c] = acc[r][c];
    }
}
static inline void clear_rows(float (*acc)[32], int mr) {
    for (int r = 0; r < mr; r++) store(acc[r], set1(0)), store(acc[r] + 16, set1(0));
}

#if defined(__AVX512F__)
#include "gemm_avx512.inl"
#elif defined(__AVX2__)
#include "gemm_avx2.inl"
#else

constexpr int kDirectRows = 12;

// acc[r] += product of the tile's rows with num_blocks K-blocks of a panel; w is at a multiple of 8 blocks
template <class P, int MR>
static void tile(const uint8_t* w, TileRows rows, int num_blocks, float (*acc)[32]) {
    for (int r = 0; r < MR; r++) {
        float part[32] = {};
        for (int block = 0; block < num_blocks; block++) {
            const uint8_t *header = w + block / 8 * P::chunk_bytes, *at = header + P::header_bytes + block % 8 * P::block_bytes;
            const uint8_t* quants = at + P::scale_bytes;
            const int8_t* a = rows.q + (ptrdiff_t)block * 32 * MR + r * 4;
            const float* f = rows.factors + (ptrdiff_t)block * 5 * MR + r;
            const int32_t* o = rows.offsets + (ptrdiff_t)block * 4 * MR + r;
            int32_t dot[2][32];
            for (int slice = 0; slice < 2; slice++)
                for (int c = 0; c < 32; c++) {
                    dot[slice][c] = o[slice * MR] * P::zero;
                    for (int k = slice * 16; k < slice * 16 + 16; k++) {
                        const int quad = k / 4, byte = c * 4 + k % 4;
                        const int u = P::bits == 8 ? quants[quad * 128 + byte] : quants[quad / 2 * 128 + byte] >> (quad % 2 * 4) & 15;
                        dot[slice][c] += u * a[quad * MR * 4 + k % 4];
                    }
                }
            for (int s = 0; s < 32 / P::sub; s++) {
                const int last = P::sub == 16 ? s : 1;
                const float unit = unit_of(f[last * MR]), sum = f[(P::sub == 16 ? 2 + s : 4) * MR];
                for (int h = 0; h < 2; h++) {
                    const V16 w_scale = mul(P::scale(header, at, s, h), set1(unit)), w_min = P::has_min ? P::min(header, at, s, h) : set1(0);
                    for (int c = 16 * h; c < 16 * h + 16; c++) {
                        int32_t total = dot[last][c];
                        if (P::sub == 32) total += ((dot[0][c] + o[3 * MR]) * (1 << kMaxLeft)) >> o[2 * MR];
                        part[c] = (float)total * w_scale.v[c - 16 * h] + part[c];
                        if (P::has_min) part[c] = w_min.v[c - 16 * h] * sum + part[c];
                    }
                }
            }
            if (block % (kGroup / 32) == kGroup / 32 - 1 || block == num_blocks - 1) {
                const float scale = rows.scale[(ptrdiff_t)(block / (kGroup / 32)) * MR + r];
                for (int c = 0; c < 32; c++) acc[r][c] = part[c] * scale + acc[r][c], part[c] = 0;
            }
        }
    }
}

#endif

using Tile = void (*)(const uint8_t*, TileRows, int, float (*)[32]);

// Only what the choice between packed and unpacked weights can reach is compiled.
template <class P, int MR>
constexpr Tile tile_or_none() {
    if constexpr (P::packed ? MR <= kDirectRows : MR >= kTileRows / 2) return tile<P, MR>;
    return nullptr;
}
template <class P>
constexpr Tile kTiles[kTileRows] = {tile_or_none<P, 1>(), tile_or_none<P, 2>(),  tile_or_none<P, 3>(),  tile_or_none<P, 4>(),
                                    tile_or_none<P, 5>(), tile_or_none<P, 6>(),  tile_or_none<P, 7>(),  tile_or_none<P, 8>(),
                                    tile_or_none<P, 9>(), tile_or_none<P, 10>(), tile_or_none<P, 11>(), tile_or_none<P, 12>()};

// K-blocks of a panel that go through all row tiles together: a tile is then long enough to hide its start and end.
constexpr int kChunkBlocks = 64;
// Activations of one row block and chunk stay in the second-level cache while all panels pass.
constexpr int kRowBlockBytes = 384 << 10;
constexpr int kRowBytes = 32 + 9 * 4;  // a row has 32 values and 9 numbers per K-block

// One panel's columns of one chunk, and where its product goes.
struct PanelChunk {
    const uint8_t* data;  // packed
    const uint8_t* next;  // packed data of the chunk after this
    int block, count;     // first K-block in the row, number of K-blocks
    float* out;           // row 0
    ptrdiff_t ldout;
    int columns;
    bool accumulate;
};

// Rows of tile t from K-block `block` on, and their number.
static inline TileRows tile_rows(const QuantRows& a, int t, int block, int& mr) {
    const ptrdiff_t start = tile_start(a.num_rows, t), blocks = a.k / 32;
    mr = tile_start(a.num_rows, t + 1) - (int)start;
    const ptrdiff_t at = start * blocks + (ptrdiff_t)block * mr;
    return {a.q + at * 32, a.scale + start * num_groups(a.k) + (ptrdiff_t)block / (kGroup / 32) * mr, a.factors + at * 5,
            a.offsets + at * 4};
}

// run(tile's mr, acc) between loading and storing the mr rows of the panel from row `start` on
template <class Run>
static inline void on_rows(const PanelChunk& c, int start, int mr, Run run) {
    alignas(64) float acc[kTileRows][32];
    float* to = c.out + start * c.ldout;
    if (c.accumulate) load_rows(acc, to, c.ldout, mr, c.columns);
    else clear_rows(acc, mr);
    run(acc);
    store_rows(acc, to, c.ldout, mr, c.columns);
}

#if defined(__AVX512F__)
#include "gemm_avx512_chunk.inl"
#else
#include "gemm_unpacked.inl"
#endif

template <class F>
static void gemm_format(const PackedMatrix& w, const QuantRows& a, int panel_begin, int panel_end, float* out,
                        ptrdiff_t ldout, bool accumulate) {
    const int tiles = num_tiles(a.num_rows), blocks = w.k / 32;
    auto columns_of = [&](int panel) { return w.n - panel * kPanelColumns < kPanelColumns ? w.n - panel * kPanelColumns : kPanelColumns; };
    if (a.num_rows <= kDirectRows) {
        for (int panel = panel_begin; panel < panel_end; panel++) {
            int mr;
            const TileRows rows = tile_rows(a, 0, 0, mr);
            const uint8_t* data = w.data + panel * w.panel_bytes;
            const PanelChunk c{data, data, 0, blocks, out + panel * kPanelColumns, ldout, columns_of(panel), accumulate};
            on_rows(c, 0, mr, [&](float (*acc)[32]) { kTiles<F>[mr - 1](data, rows, blocks, acc); });
        }
        return;
    }
    const int tile_bytes = kTileRows * kRowBytes * (blocks < kChunkBlocks ? blocks : kChunkBlocks);
    const int step = kRowBlockBytes / tile_bytes;
    RowBlock<F> rows;
    for (int t = 0; t < tiles; t += step)
        for (int block = 0; block < blocks; block += kChunkBlocks) {
            const int count = blocks - block < kChunkBlocks ? blocks - block : kChunkBlocks;
            rows.set(a, t, t + step < tiles ? t + step : tiles, block, count);
            for (int panel = panel_begin; panel < panel_end; panel++) {
                const uint8_t* data = w.data + panel * w.panel_bytes + block / 8 * F::chunk_bytes;
                const size_t next_chunk = (size_t)(block + kChunkBlocks) / 8 * F::chunk_bytes;
                const uint8_t* next = panel + 1 < panel_end           ? data + w.panel_bytes
                                      : block + kChunkBlocks < blocks ? w.data + panel_begin * w.panel_bytes + next_chunk
                                                                      : data;
                float* to = out + panel * kPanelColumns;
                chunk_product<F>({data, next, block, count, to, ldout, columns_of(panel), accumulate || block > 0}, rows);
            }
        }
}

static void gemm_quant(const PackedMatrix& w, const QuantRows& a, int panel_begin, int panel_end, float* out,
                       ptrdiff_t ldout, bool accumulate) {
    switch (w.type) {  // GGUF's numbers; the parameters repeat kFormats of pack.cpp
        case 2: return gemm_format<Packed<4, 8, false, 32, false, 15>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 3: return gemm_format<Packed<4, 0, true, 32, false, 15>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 6: return gemm_format<Packed<8, 16, false, 32, false, 31>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 7: return gemm_format<Packed<8, 0, true, 32, false, 31>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 8: return gemm_format<Packed<8, 128, false, 32, false, 255>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 10: return gemm_format<Packed<4, 0, true, 16, true, 3>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 11: return gemm_format<Packed<4, 4, false, 16, true, 7>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 12: return gemm_format<Packed<4, 0, true, 32, true, 15>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 13: return gemm_format<Packed<8, 0, true, 32, true, 31>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
        case 14: return gemm_format<Packed<8, 32, false, 16, true, 63>>(w, a, panel_begin, panel_end, out, ldout, accumulate);
    }
}

#if defined(__AVX512F__)
constexpr int kFloatRows = 12, kFloatHalves = 2;
#else
constexpr int kFloatRows = 4, kFloatHalves = 1;
#endif

// 16 weights of the file's own float type as fp32
template <int Type>
static inline V16 load_weights(const uint8_t* p) {
    if constexpr (Type == 0) return load((const float*)p);
    if constexpr (Type == 1) return load_half(p);
    return load_bf16((const uint16_t*)p);
}

template <int Type, int R>
static inline void float_tile(const uint8_t* w, int k, const float* x, ptrdiff_t ldx, int half, float (*out)[32]) {
    constexpr int kSize = Type == 0 ? 4 : 2;
    V16 acc[R][kFloatHalves];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int h = 0; h < kFloatHalves; h++) acc[r][h] = set1(0);
    for (int i = 0; i < k; i++) {
        V16 weight[kFloatHalves];
#pragma GCC unroll 2
        for (int h = 0; h < kFloatHalves; h++) weight[h] = load_weights<Type>(w + ((size_t)i * 32 + 16 * (half + h)) * kSize);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const V16 value = set1(x[r * ldx + i]);
#pragma GCC unroll 2
            for (int h = 0; h < kFloatHalves; h++) acc[r][h] = fma(value, weight[h], acc[r][h]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int h = 0; h < kFloatHalves; h++) store(out[r] + 16 * (half + h), acc[r][h]);
}

template <int Type, int R>
static void float_rows(const uint8_t* w, int k, const float* x, ptrdiff_t ldx, int num_rows, float (*acc)[32]) {
    if (num_rows == R) {
        for (int half = 0; half < 2; half += kFloatHalves) float_tile<Type, R>(w, k, x, ldx, half, acc);
    } else if constexpr (R > 1) {
        float_rows<Type, R - 1>(w, k, x, ldx, num_rows, acc);
    }
}

static void gemm_float(const PackedMatrix& w, const float* x, ptrdiff_t ldx, int num_rows, int panel_begin, int panel_end,
                       float* out, ptrdiff_t ldout, bool accumulate) {
    alignas(64) float acc[kFloatRows][32];
    for (int panel = panel_begin; panel < panel_end; panel++) {
        const uint8_t* data = w.data + panel * w.panel_bytes;
        const int first = panel * kPanelColumns, columns = w.n - first < kPanelColumns ? w.n - first : kPanelColumns;
        for (int m = 0; m < num_rows; m += kFloatRows) {
            const int count = num_rows - m < kFloatRows ? num_rows - m : kFloatRows;
            const float* rows = x + m * ldx;
            if (w.type == 0) float_rows<0, kFloatRows>(data, w.k, rows, ldx, count, acc);
            else if (w.type == 1) float_rows<1, kFloatRows>(data, w.k, rows, ldx, count, acc);
            else float_rows<30, kFloatRows>(data, w.k, rows, ldx, count, acc);
            float* to = out + m * ldout + first;
            for (int r = 0; r < count; r++, to += ldout)
                for (int c = 0; c < columns; c++) to[c] = accumulate ? to[c] + acc[r][c] : acc[r][c];
        }
    }
}
