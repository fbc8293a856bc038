// Every kernel of inferd and its contract. One KernelTable per ISA; all write the same bits for a given row whatever
// else is in the batch. Kernels check nothing: model.cpp has checked every size and index before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gemm.h"

namespace inferd {

enum class Activation : int { silu = 0, gelu_tanh = 1 };

// Rows of queries that one attend() call serves against one kv head.
constexpr int kMaxAttendRows = 12;
constexpr int kMaxHeadDim = 512;
// Attention is cut at absolute positions that are multiples of this, then merged in order: a row's bits depend on its
// own length only. A multiple of every allowed block size.
constexpr int kAttendSplit = 256;

// K and V of one kv head inside one block:
//   bf16  K [block_size/16][head_dim/2][16 tokens][2]   V [block_size/2][head_dim][2 tokens]
//   int8  K [block_size/16][head_dim/4][16 tokens][4] as value + 128, V [block_size/4][head_dim][4 tokens]; after each its
//         fp32 scales [block_size], amax / 127 of the token's head
enum class KvType : int { bf16 = 0, int8 = 1 };

// bytes of K, or V, of one kv head of a block; a multiple of 64
inline ptrdiff_t kv_head_bytes(KvType type, int block_size, int head_dim) {
    return type == KvType::bf16 ? (ptrdiff_t)block_size * head_dim * 2 : (ptrdiff_t)block_size * (head_dim + 4);
}

struct KvView {
    const uint8_t* layer;         // first block of the layer
    const int32_t* block_table;   // block of positions [i * block_size, (i + 1) * block_size)
    ptrdiff_t block_stride;       // bytes from block to block
    ptrdiff_t k_offset, v_offset; // of the kv head inside a block
    int block_size, head_dim;
};

struct AttendRows {
    int num_rows;       // 1 .. kMaxAttendRows
    const float* q;     // (num_rows, head_dim), scaled
    const int* begin;   // (num_rows,) each row sees keys [begin, end)
    const int* end;     // (num_rows,)
    float soft_cap;     // 0 = off
};

// A softmax in progress for num_rows rows: running maximum, sum of exponentials, weighted values.
struct Partial {
    float* max;  // (num_rows,)
    float* sum;  // (num_rows,)
    float* out;  // (num_rows, head_dim)
};

// What reads and writes one type of KV cache.
struct KvKernels {
    // writes one token's K and V of one kv head at slot of a block, rounded to nearest even
    void (*store)(const float* k, const float* v, int head_dim, int block_size, int slot, uint8_t* k_head, uint8_t* v_head);
    // the partial softmax of the split of keys [key_begin, key_end); overwrites `out`, where sum is 0 for rows that see
    // none of its keys (max and out are then undefined)
    void (*attend)(const KvView& kv, const AttendRows& rows, int key_begin, int key_end, const Partial& out);
};

// What x becomes; gelu is the one of erf.
enum class RowActivation : int { none = 0, gelu = 1, gelu_tanh = 2, relu = 3 };

// What encoders need besides; n and w.n are multiples of 16 and 32.
struct EncoderKernels {
    // x = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias
    void (*layer_norm)(float* x, const float* weight, const float* bias, float eps, int n);
    // x = act(x + bias)
    void (*add_and_activate)(RowActivation act, float* x, const float* bias, int n);
    // to nearest even; NaN may become any value
    void (*round_to_bf16)(const float* x, int n, uint16_t* out);
    // out[m*ldout + n] = sum over k of x[m*ldx + k] * W[n, k], both bf16, W packed by pack_pairs; pairs are added as the
    // bit rule of attention.inl says
    void (*gemm_pairs)(const PackedMatrix& w, const uint16_t* x, ptrdiff_t ldx, int num_rows, int panel_begin,
                       int panel_end, float* out, ptrdiff_t ldout);
};

struct KernelTable {
    const char* name;

    // native/gemm.h states these three.
    void (*quantize_rows)(const float* x, ptrdiff_t ldx, int row_begin, int row_end, const QuantRows& out);
    void (*gemm_quant)(const PackedMatrix& w, const QuantRows& a, int panel_begin, int panel_end, float* out,
                       ptrdiff_t ldout, bool accumulate);
    void (*gemm_float)(const PackedMatrix& w, const float* x, ptrdiff_t ldx, int num_rows, int panel_begin,
                       int panel_end, float* out, ptrdiff_t ldout, bool accumulate);

    // out = x / sqrt(mean(x^2) + eps) * weight; n a multiple of 16; out may be x
    void (*rms_norm)(const float* x, const float* weight, float eps, int n, float* out);
    // x += y; n a multiple of 16
    void (*add)(float* x, const float* y, int n);
    // x *= factor; n a multiple of 16
    void (*scale)(float* x, float factor, int n);
    // out = act(gate) * up; n a multiple of 16; out may be gate
    void (*gated)(Activation act, const float* gate, const float* up, int n, float* out);
    // rotates pairs (i, i + half) of one head by the angles whose cosines and sines are given
    void (*rope)(float* head, const float* cosine, const float* sine, int half);
    KvKernels kv[2];  // by KvType
    // total = total merged with part; a total or part whose sum is 0 is empty
    void (*merge)(const Partial& total, const Partial& part, int num_rows, int head_dim);

    // x -> cap * tanh(x / cap)
    void (*soft_cap_all)(float* x, float cap, int n);
    // largest value; lowest index among equals
    int (*argmax)(const float* x, int n);
    // sum over i of exp((x[i] - shift) * factor); out, when not null, receives each term
    double (*sum_exp)(const float* x, float shift, float factor, int n, float* out);

    // Adapters (lora.h); `rows` are the rows of x, u and out that have this one.
    // u[row, r] = scale * sum over k of x[row, k] * a[r, k], 16 sums side by side, k ascending, then as a tree;
    // x (.., k), a (num_ranks, k) in bf16, num_ranks a multiple of kLoraRankStep
    void (*lora_shrink)(const float* x, const int* rows, int num_rows, const uint16_t* a, int k, int num_ranks, float scale,
                        float* u, ptrdiff_t ldu);
    // out[row, c] += sum over r of u[row, r] * b[c / 16][r][c % 16], r ascending, from 0; n a multiple of 16
    void (*lora_expand)(const float* u, ptrdiff_t ldu, const int* rows, int num_rows, const uint16_t* b, int rank, int n,
                        float* out, ptrdiff_t ldout);
    EncoderKernels encoder;
};

// The best table this CPU runs, or the one INFERD_ISA names ("avx512", "avx2", "baseline"); throws
// std::invalid_argument on a name that is unknown or that the CPU cannot run.
const KernelTable& kernels();
// Comma-separated names of the tables this CPU can run, best first.
const char* available_isas();

namespace avx512 {
extern const KernelTable kTable;
extern const KernelTable kBf16Table;  // the same bits through vdpbf16ps
}
namespace avx2 {
extern const KernelTable kTable;
}
namespace baseline {
extern const KernelTable kTable;
}

}  // namespace inferd
