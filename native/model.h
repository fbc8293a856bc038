// The whole model over one ragged batch: embedding, layers, logits, sampling. Owns packed weights, KV cache, scratch and
// the thread pool. One step at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels.h"
#include "lora.h"
#include "pool.h"
#include "sampler.h"

namespace inferd {

struct LayerSpec {
    int window;  // 0 = all
    int rope;    // index into ropes
};

struct RopeSpec {
    int dims;                     // rotated leading dims
    float magnitude;              // multiplies cos and sin
    std::vector<float> inv_freq;  // (dims / 2,)
};

struct ModelSpec {
    int vocab_size, hidden_size, ffn_size, num_heads, num_kv_heads, head_dim;
    std::vector<LayerSpec> layers;
    std::vector<RopeSpec> ropes;
    float norm_eps, attention_scale, attention_soft_cap, logit_soft_cap, embedding_scale;
    Activation activation;
    bool qkv_bias, qk_norm, post_norms, tied_head;
};

struct Limits {
    int num_blocks, block_size, max_num_batched_tokens, max_num_seqs, max_model_len, num_threads;
    KvType kv_type;
};

// Views of the caller's arrays; shapes: executors/base.py.
struct Batch {
    std::span<const int32_t> token_ids, query_starts, context_lens, adapter_ids, block_tables, block_copies, logit_rows;
    ptrdiff_t max_num_blocks;  // columns of block_tables
    std::span<const float> temperature, top_p, min_p, typical_p, repetition_penalty, frequency_penalty, presence_penalty;
    std::span<const int32_t> top_k, target, num_logprobs, mask_index;
    std::span<const uint64_t> seed;
    std::span<const int64_t> draw_index;
    std::span<const int32_t> penalty_starts, penalty_ids, penalty_counts, bias_starts, bias_ids;
    std::span<const float> bias_values;
    std::span<const uint32_t> allowed_masks;
};

struct StepOutput {
    std::span<int32_t> token_ids, ranks, top_ids;
    std::span<float> logprobs, top_logprobs;
    ptrdiff_t num_top;        // columns of top_ids
    std::span<float> logits;  // (R, vocab) receives the raw logits, or empty
};

// Both throw std::invalid_argument that names the field and its range.
void check_limits(const ModelSpec& spec, const Limits& limits);
void check_rows(const std::string& name, int type, size_t row_bytes, int num_cols);

// Zeroed pages, huge where the system allows. Throws std::bad_alloc when the machine has not got that much.
class Memory {
public:
    Memory() = default;
    explicit Memory(size_t bytes);
    Memory(Memory&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    Memory& operator=(Memory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Memory();
    uint8_t* data() const { return data_; }

private:
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

// Zeros that start at a cache line; nothing until allocate().
template <class T>
class Buffer {
public:
    void allocate(size_t count) { memory_ = Memory(std::max<size_t>(count, 1) * sizeof(T)); }
    T* data() const { return reinterpret_cast<T*>(memory_.data()); }

private:
    Memory memory_;
};

class Model {
public:
    Model(ModelSpec spec, Limits limits);
    ~Model();  // where ThreadScratch is known

    // rows: the tensor as the file has it. The embedding's bytes must outlive the model; matrices are packed at once.
    // All throw std::invalid_argument when the rows are not what the type and the model's sizes ask for.
    void set_embedding(int type, const uint8_t* rows, size_t row_bytes, size_t num_rows);
    void add_matrix(const std::string& name, int type, const uint8_t* rows, size_t row_bytes, int num_rows, int num_cols);
    void add_vector(const std::string& name, std::span<const float> values);
    // Resolves names; throws std::invalid_argument naming what is missing or has a wrong size.
    void finish();

    // Adapters may come and go beside a step, which holds on to those it uses. A new one is empty; its id is for
    // Batch::adapter_ids. a: (rank, in), b: (out, rank) of a LoraTarget. Throws std::invalid_argument for wrong sizes.
    int add_adapter();
    void add_adapter_matrix(int id, int layer, int target, std::span<const float> a, std::span<const float> b, int rank,
                            float scale);
    void remove_adapter(int id);

    // Throws std::invalid_argument before anything is changed when the batch breaks the contract.
    void step(const Batch& batch, const StepOutput& out);

    size_t num_packed_bytes() const { return num_packed_bytes_; }
    const Limits& limits() const { return limits_; }
    const ModelSpec& spec() const { return spec_; }

private:
    struct Matrix {
        PackedMatrix packed;
        bool is_float;
    };
    struct Linear {  // one input, outputs side by side
        std::vector<const Matrix*> parts;
        bool needs_quant = false;
        int num_panels = 0;
        size_t num_bytes = 0;
        int layer = -1, first_target = -1;  // what adapters call it; the head has none
    };
    struct Layer {
        Linear qkv, o, gate_up, down;
        const float *attn_norm, *ffn_norm, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *post_attn_norm, *post_ffn_norm;
    };
    struct AttendItem {  // some tokens of a sequence, some heads of a kv head: tiles of up to kMaxAttendRows rows
        int seq, token_begin, num_tokens, kv_head, head_begin, num_heads;
        int split;      // one split, one tile, its partial kept in a slot; -1 = all splits, result written at once
        int num_splits;
        bool writes;    // the item puts the K and V of its tokens into the cache first: no other item reads them
    };
    // Quantized rows of up to some number of values, or what their memory is made of.
    struct QuantMemory {
        void allocate(size_t rows, size_t widest);
        QuantRows view(int num_rows, int k) const {
            return make_quant_rows(num_rows, k, values.data(), floats.data(), ints.data());
        }
        Buffer<int8_t> values;  // (rows * widest,)
        Buffer<float> floats;   // (rows * widest / 16 * 3,)
        Buffer<int32_t> ints;   // likewise
    };
    struct Input {  // what a product reads
        const float* x;  // (num_rows, quant.k)
        QuantRows quant; // made only when the product needs it
    };
    struct ThreadScratch;

    void check(const Batch& batch, const StepOutput& out) const;
    void check_sampling(const Batch& batch) const;
    void plan_tokens(const Batch& batch);
    void plan_attention(const Batch& batch);
    void add_items(const Batch& batch, int seq, int kv_head, bool is_split);
    void copy_blocks(const Batch& batch);
    void embed(const Batch& batch);
    void run_layer(int index, const Batch& batch);
    void run_head(const Batch& batch, const StepOutput& out);
    void sample(int thread, int at, int row, const Batch& batch, const StepOutput& out);
    template <class Rows, class F>
    void each_piece(int num_pieces, int num_rows, const Linear& linear, Rows rows, F f);
    template <class Rows>
    void multiply(const Linear& linear, int num_rows, Rows rows, float* out, ptrdiff_t ldout, bool accumulate);
    void multiply_part(const Linear& linear, int part, const Input& in, int begin, int end, float* out, ptrdiff_t ldout,
                       bool accumulate);
    void multiply_panels(const PackedMatrix& packed, bool is_float, const Input& in, int begin, int end, float* out,
                         ptrdiff_t ldout, bool accumulate);
    std::shared_ptr<LoraAdapter> adapter_of(int id) const;
    const PackedMatrix& linear_at(int layer, int target) const;
    void plan_adapters(const Batch& batch);
    int num_shrinks(const Linear& linear) const;
    void shrink(const Linear& linear, int item, const float* x);
    void expand(const Linear& linear, int part, int begin, int end, float* out, ptrdiff_t ldout) const;
    void residual_row(const float* post_norm, int row, float* out) const;
    const float* normed_rows(const float* post_norm, const float* norm, int begin, int end, float* out, bool keep);
    void gate_up_group(const Layer& layer, const Input& in, int group, float* gate_up);
    int num_pieces(const Linear& linear, int num_rows) const;
    bool item_writes(int num_new_tokens) const;
    void write_kv(int layer, const Batch& batch);
    void write_token(int layer, int token, int kv_head, const Batch& batch);
    void rotate(int layer, int position, const float* bias, const float* norm, float* head) const;
    void attend_items(int layer, const Batch& batch);
    void attend_item(ThreadScratch& scratch, const KvView& kv, const AttendItem& item, size_t slot, int layer,
                     const Batch& batch);
    KvView kv_view(int layer, const AttendItem& item, const Batch& batch) const;
    void fetch_ahead(const KvView& kv, const AttendItem& item, int layer) const;
    void merge_splits();
    AttendRows gather_queries(ThreadScratch& scratch, const AttendItem& item, int tile, int layer);
    Partial total_of(ThreadScratch& scratch, int tile) const;
    void emit_rows(const AttendItem& item, int first, const Partial& total);
    RowSampling row_sampling(const Batch& batch, int row) const;
    uint8_t* block_at(int layer, int block) const;
    const float* vector_of(const std::string& name, int size) const;
    Linear linear_of(std::initializer_list<std::pair<std::string, int>> names, int num_cols) const;

    const ModelSpec spec_;
    const Limits limits_;
    const KernelTable& kernels_;
    Pool pool_;

    // weights, constant after finish()
    std::unordered_map<std::string, std::unique_ptr<Matrix>> matrices_;
    std::unordered_map<std::string, std::vector<float>> vectors_;
    std::vector<Memory> packed_memory_;
    size_t num_packed_bytes_ = 0;
    int embedding_type_ = -1;
    const uint8_t* embedding_ = nullptr;
    size_t embedding_row_bytes_ = 0;
    std::vector<Layer> layers_;
    Linear head_;
    const float* final_norm_ = nullptr;
    std::vector<std::vector<float>> cosines_, sines_;  // per rope: (max_model_len, dims / 2)

    // KV cache: [layer][block][K of all kv heads, V of all kv heads]
    const KvKernels& kv_kernels_;
    ptrdiff_t kv_head_bytes_, block_bytes_;
    Memory kv_memory_;

    mutable std::mutex adapters_mutex_;
    std::unordered_map<int, std::shared_ptr<LoraAdapter>> adapters_;
    int num_adapters_ = 0;  // ever

    // scratch of the step; T = max_num_batched_tokens
    int num_tokens_ = 0;
    std::vector<int> position_, seq_of_;       // (T,)
    Buffer<float> x_, next_x_;      // (T, hidden); next_x_: models with post norms only, which swap the two
    Buffer<float> normed_;          // (T, hidden)
    Buffer<float> block_out_;       // (T, hidden)
    Buffer<float> qkv_;             // (T, (num_heads + 2 num_kv_heads) * head_dim)
    Buffer<float> attention_;       // (T, num_heads * head_dim)
    Buffer<float> hidden_;          // (T, ffn)
    QuantMemory quant_, ffn_quant_; // inputs shared by the threads; of the down product
    std::vector<int> adapter_rows_;             // rows that have an adapter, grouped by it
    std::vector<LoraGroup> adapter_groups_;
    int max_adapter_rank_ = 0;                  // of the step, padded
    size_t shrunk_size_ = 0;
    Buffer<float> shrunk_;                      // (T, 3 parts, max_adapter_rank_): A x of one product
    uint64_t stage_ = 0;            // counts products, so that a thread knows whether it has prepared the input
    bool writes_first_ = false;     // some K and V go into the cache before attention begins
    std::vector<AttendItem> items_;
    size_t num_split_items_ = 0;               // the first of items_; each owns a slot
    int num_attend_pieces_ = 0;
    Buffer<float> slots_;                      // per slot: max, sum (kMaxAttendRows each), out
    Buffer<float> logits_;                     // (head_rows_, vocab)
    int head_rows_ = 0;
    std::vector<std::unique_ptr<ThreadScratch>> scratch_;
    std::mutex running_;
};

}  // namespace inferd
