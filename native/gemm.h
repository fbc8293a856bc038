// Matrix products y[m, n] = sum over k of x[m, k] * W[n, k] on weights packed exactly as the file has them.
//
// Integer types: activations become int8 with one fp32 scale per 32 values of a row (quantize_rows); W stays unsigned
// integers with the file's own scales. Float types (F32, F16, BF16): fp32 activations, fp32 FMA.
//
// THE BIT RULE. For one row and one column the fp32 operations and their order are fixed, whatever the number of rows,
// the tile shape, the thread or the ISA (avx512 = avx2; the baseline has no FMA and rounds twice). For each sub-block
// (32 values of k; 16 for Q2_K, Q3_K, Q6_K) in ascending order, with exact int32 dot:
//     acc = fma(float(dot), w_scale * a_scale, acc)
//     acc = fma(w_min, a_scale * float(sum of a), acc)        types with minima only
// where w_scale and w_min are exact in fp32 (K types: product of an fp16 and a small integer). Float types:
//     acc = fma(x[k], w[k], acc)                              k ascending
#pragma once

#include <cstddef>
#include <cstdint>

namespace inferd {

constexpr int kPanelColumns = 32;
constexpr int kTileRows = 12;

// How an integer type is packed. A panel of 32 columns is one stream of K-blocks of 32 k, all parts 64-byte aligned:
//   flat types:  per K-block   fp16 scale[32], (fp16 min[32])
//   K types:     per 8 K-blocks fp16 d[32], (fp16 dmin[32]); per K-block  sub 32: u8 scale[32], u8 min[32]
//                                                                         sub 16: s8 scale[2][32], (u8 min[2][32])
//   then quants, 4 bits: 8 lines of 64 B, line 2j+h: byte 4c+i = column 16h+c, low nibble k 8j+i, high nibble k 8j+4+i
//                8 bits: [8 quads of k][32 columns][4 k]
struct Format {
    int bits;          // 4 or 8
    int zero;          // weight = unsigned value - zero; a power of two, or 0
    bool has_min;
    int sub;           // k per scale: 32 or 16
    bool super;        // K types
    int max_value;     // largest unsigned value
};

// Throws std::invalid_argument on a type that is not an integer type.
const Format& format_of(int type);

struct PackedMatrix {
    int type;
    int n, k;            // k a multiple of 32 (of 256 for K types)
    int num_panels;      // ceil(n / 32); missing columns are zeros
    size_t panel_bytes;
    const uint8_t* data; // 64-byte aligned
};

size_t packed_bytes(int type, int n, int k);
PackedMatrix make_packed(int type, int n, int k, const uint8_t* data);
// Packs panels [panel_begin, panel_end) of a matrix whose rows the file has at rows + i * row_bytes.
void pack(int type, const uint8_t* rows, size_t row_bytes, int n, int k, int panel_begin, int panel_end, uint8_t* out);

// int8 rows, tile-packed: num_rows are cut evenly into ceil(num_rows / 12) tiles; tile t holds rows
// [num_rows*t/T, num_rows*(t+1)/T), mr of them from `start`. Element (m, k): q[start*K + (k/4)*mr*4 + (m-start)*4 + k%4].
// Per 32 k (g): scale, neg_sum32, scaled_sum32 at start*(K/32) + g*mr + (m-start); per 16 k likewise with K/16.
struct QuantRows {
    int num_rows, k;
    int8_t* q;
    float* scale;
    int32_t *neg_sum32, *neg_sum16;        // minus the sum of the int8 values
    float *scaled_sum32, *scaled_sum16;    // scale * sum
};

inline int num_tiles(int num_rows) { return (num_rows + kTileRows - 1) / kTileRows; }
inline int tile_start(int num_rows, int tile) { return (int)((int64_t)num_rows * tile / num_tiles(num_rows)); }

// Kernels with these contracts are in each KernelTable:
//   quantize_rows(x, ldx, row_begin, row_end, out)   amax per 32 -> scale = amax / 127, q = round to nearest even;
//                                                    non-finite values count as 0
//   gemm_quant(w, a, panel_begin, panel_end, out, ldout, accumulate)   out[m*ldout + n] (+)= y, n < w.n only
//   gemm_float(w, x, ldx, num_rows, panel_begin, panel_end, out, ldout, accumulate)

}  // namespace inferd
