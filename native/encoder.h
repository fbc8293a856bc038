// An encoder over one ragged batch: embedding, layers in which all tokens of a sequence see each other, pooling, and the
// dense layers behind it. Owns packed weights, scratch and the thread pool. Rows of a sequence depend on it alone.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels.h"
#include "model.h"
#include "pool.h"

namespace inferd {

struct HeadSpec {  // a dense layer on the pooled vector
    int size;
    int activation;  // 0 none, 1 tanh, 2 relu
};

// Post-norm layers: x = norm(x + o(attend(q(x), k(x), v(x)))); x = norm(x + down(act(up(x)))). All have biases.
struct EncoderSpec {
    int vocab_size, hidden_size, ffn_size, num_heads, num_layers, max_position, num_types;  // num_types 0: none
    float norm_eps;
    RowActivation activation;
    std::vector<HeadSpec> heads;
};

enum class Pooling : int { none = 0, mean = 1, cls = 2, last = 3 };

struct EncoderBatch {
    std::span<const int32_t> token_ids, type_ids;  // (T,)
    std::span<const int32_t> starts;               // (S + 1,) tokens of sequence s: [starts[s], starts[s + 1])
    Pooling pooling;
};

class Encoder {
public:
    // max_num_tokens: of one batch. Throws std::invalid_argument that names the limit.
    Encoder(EncoderSpec spec, int max_num_tokens, int num_threads);
    ~Encoder();

    // rows: as the file has them. Tables ("word", "position", "type") are read from the caller's memory; matrices are
    // packed at once. in_pairs: products of bf16 pairs; the rows are BF16 then.
    void set_table(const std::string& name, int type, const uint8_t* rows, size_t row_bytes, size_t num_rows);
    void add_matrix(const std::string& name, int type, const uint8_t* rows, size_t row_bytes, int num_rows, int num_cols,
                    bool in_pairs);
    void add_vector(const std::string& name, std::span<const float> values);
    // Resolves names; throws std::invalid_argument naming what is missing or has a wrong size.
    void finish();

    // out: (S, width of the last head, or hidden), or (T, hidden) with Pooling::none, which leaves the heads out. Throws
    // std::invalid_argument naming the field.
    void encode(const EncoderBatch& batch, std::span<float> out);

    size_t num_packed_bytes() const { return num_packed_bytes_; }

private:
    struct Matrix {
        PackedMatrix packed;
        bool is_float, in_pairs;
    };
    struct Dense {
        const Matrix* weight;
        const float* bias;
        int size() const { return weight->packed.n; }
        int input() const { return weight->packed.k; }
    };
    struct Norm {
        const float *weight, *bias;
    };
    struct Layer {
        Dense qkv, o, up, down;
        Norm attn_norm, ffn_norm;
    };
    struct Table {
        int type = -1;
        const uint8_t* rows = nullptr;
        size_t row_bytes = 0, num_rows = 0;
    };
    struct AttendItem {  // some queries of one head of a sequence
        int begin, end, query_begin, query_end, head;
    };
    struct RowScratch;
    struct HeadScratch;

    void check(const EncoderBatch& batch, std::span<float> out) const;
    void embed(const EncoderBatch& batch);
    void plan_attention(const EncoderBatch& batch);
    void attend(HeadScratch& scratch, const AttendItem& item);
    void attend_tile(HeadScratch& scratch, const AttendItem& item, const KvView& kv, int from, int to);
    template <class F>
    void each_row_block(F f);
    template <class Team>
    void project(Team& team, RowScratch& scratch, const Layer& layer, int begin, int end);
    template <class Team>
    void finish_layer(Team& team, RowScratch& scratch, const Layer& layer, int begin, int end);
    template <class Team>
    void multiply(Team& team, RowScratch& scratch, const Dense& dense, const float* x, int num_rows, RowActivation act,
                  float* out);
    template <class Team>
    void add_norm(Team& team, const float* sums, const Norm& norm, int begin, int end);
    void pool_rows(const EncoderBatch& batch, float* out);
    void run_heads(int num_rows, float* pooled, std::span<float> out);
    const float* vector_of(const std::string& name, int size) const;
    Dense dense_of(const std::string& name, int size, int num_cols) const;
    Norm norm_of(const std::string& name) const;
    int out_size() const { return heads_.empty() ? spec_.hidden_size : heads_.back().size(); }

    const EncoderSpec spec_;
    const int head_dim_, max_num_tokens_;
    const KernelTable& kernels_;
    Pool pool_;

    // weights, constant after finish()
    std::unordered_map<std::string, Table> tables_;
    std::unordered_map<std::string, std::unique_ptr<Matrix>> matrices_;
    std::unordered_map<std::string, std::vector<float>> vectors_;
    std::vector<Memory> packed_memory_;
    size_t num_packed_bytes_ = 0;
    std::vector<Layer> layers_;
    std::vector<Dense> heads_;
    Norm embed_norm_{};
    bool is_finished_ = false;

    // scratch of a batch; T = max_num_tokens
    int num_tokens_ = 0;
    Buffer<float> x_;          // (T, hidden)
    Buffer<float> qkv_;        // (T, 3 * hidden)
    Buffer<float> attention_;  // (T, hidden)
    std::vector<AttendItem> items_;
    std::vector<std::unique_ptr<RowScratch>> row_scratch_;    // per thread
    std::vector<std::unique_ptr<HeadScratch>> head_scratch_;  // per thread
    std::mutex running_;
};

}  // namespace inferd
