// Matrix products y[m, n] = sum over k of x[m, k] * W[n, k] on weights packed exactly as the file has them.
//
// Integer types: activations become int8 with a shared scale (quantize_rows); W stays unsigned integers with the file's
// own scales. Float types (F32, F16, BF16): fp32 activations, fp32 FMA.
//
// THE BIT RULE. For one row and one column the operations and their order are fixed, whatever the number of rows, the
// tile shape, the thread or the ISA (avx512 = avx2; the baseline has no FMA and rounds twice).
//
// Activations. A row is cut into groups of 128 k (the last may be shorter) and slices of 16 k. A group has the scale
// s = amax / 127; a slice has the scale s * 2^-e, e the largest integer in [0, 12] with amax_slice * 2^e <= amax; in the
// second slice of 32 k at most e of the first + 6. The powers of two keep one large value from coarsening its
// neighbours, and cost no multiplication.
//
// Product. For each group in ascending order, part = 0; for each sub-block of it (32 k; 16 for Q2_K, Q3_K, Q6_K):
//     dot  = exact int32 dot of (w - zero) and a over 16 k, or over 32 k with slices 0 and 1 brought to the scale of
//            slice 1: c = e1 - e0, dot = (c >= 0 ? dot0 << c : (dot0 + (1 << (-c - 1))) >> -c) + dot1
//     part = fma(float(dot), w_scale * 2^-e, part)                  e of the sub-block's last slice
//     part = fma(w_min, sum over its slices of 2^-e * sum(a), part)  types with minima only; the sum is exact
// and then acc = fma(part, s, acc). acc starts from 0, or from the output when it is to be added to. w_scale and w_min are exact in fp32 (K types: product of an fp16 and a small
// integer). Float types:
//     acc = fma(x[k], w[k], acc)                                    k ascending, from 0; output + acc at the end
#pragma once

#include <cstddef>
#include <cstdint>

namespace inferd {

constexpr int kPanelColumns = 32;
constexpr int kTileRows = 12;
constexpr int kGroup = 128;       // k per activation scale
constexpr int kMaxExponent = 12;  // keeps the sums of two slices exact in fp32
constexpr int kMaxLeft = 6;       // keeps the dots of all types but Q8_0 below 2^22

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

// BF16 rows as pairs of k for EncoderKernels::gemm_pairs, in as many bytes: a panel is [k / 2][32 columns][2]; k even.
void pack_pairs(const uint16_t* rows, int n, int k, int panel_begin, int panel_end, uint16_t* out);

// int8 rows, tile-packed: num_rows are cut evenly into ceil(num_rows / 12) tiles; tile t holds rows
// [num_rows*t/T, num_rows*(t+1)/T), mr of them from `start`. Element (m, k): q[start*K + (k/4)*mr*4 + (m-start)*4 + k%4].
// Per group: scale at start*num_groups(K) + group*mr + (m-start). Per 32 k, factors as [5][mr] at
// (start*(K/32) + block*mr) * 5 and offsets as [4][mr] at (start*(K/32) + block*mr) * 4:
struct QuantRows {
    int num_rows, k;
    int8_t* q;
    float* scale;
    float* factors;    // 1.5 * 2^23 * 2^-e of slice 0, of slice 1; 2^-e * sum(a) of slice 0, of slice 1, of both
    int32_t* offsets;  // -sum(a) of slice 0, of slice 1; 6 - c, the shift to the right of dot0 << 6; the rounding of dot0
};

inline int num_groups(int k) { return (k + kGroup - 1) / kGroup; }
// Views over the caller's memory: q num_rows * k, floats and ints num_rows * k / 16 * 3 elements.
inline QuantRows make_quant_rows(int num_rows, int k, int8_t* q, float* floats, int32_t* ints) {
    return {num_rows, k, q, floats, floats + (size_t)num_rows * num_groups(k), ints};
}

inline int num_tiles(int num_rows) { return (num_rows + kTileRows - 1) / kTileRows; }
inline int tile_start(int num_rows, int tile) { return (int)((int64_t)num_rows * tile / num_tiles(num_rows)); }

// Kernels with these contracts are in each KernelTable:
//   quantize_rows(x, ldx, row_begin, row_end, out)   q = round to nearest even; non-finite values count as 0, and so
//                                                    does a group whose amax is below 1e-30
//   gemm_quant(w, a, panel_begin, panel_end, out, ldout, accumulate)   out[m*ldout + n] (+)= y, n < w.n only
//   gemm_float(w, x, ldx, num_rows, panel_begin, panel_end, out, ldout, accumulate)

}  // namespace inferd
