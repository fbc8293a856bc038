// One batch through an encoder. A layer is two stages: attention, cut by sequence and head, and everything that works on
// rows alone, cut by blocks of rows that stay in a core's cache from the output projection to the next layer's queries.
#include "encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "dequant.h"

namespace inferd {

namespace {

constexpr int kBlockRows = 96;   // of a row block: its feed-forward state (1,536 wide, fp32) is 590 KB
constexpr int kSplitRows = 32;   // per thread; fewer rows are not cut, the columns of each product are
constexpr int kQueries = 8 * kMaxAttendRows;  // of an attention item

constexpr int kF32 = 0, kF16 = 1, kBf16 = 30;

// One thread alone, with the interface of Pool.
struct Solo {
    int num_threads() const { return 1; }
    template <class F>
    void each(int count, F&& f) {
        for (int i = 0; i < count; i++) f(0, i);
    }
};

void require(bool ok, const std::string& what) {
    if (!ok) throw std::invalid_argument(what);
}

int piece_at(int count, int piece, int num_pieces) { return (int)((int64_t)count * piece / num_pieces); }

}  // namespace

struct Encoder::RowScratch {
    RowScratch(const EncoderSpec& spec) {
        const size_t widest = std::max(spec.hidden_size, spec.ffn_size);
        sums.allocate((size_t)kBlockRows * spec.hidden_size);
        inner.allocate((size_t)kBlockRows * spec.ffn_size);
        pairs.allocate(kBlockRows * widest);
        values.allocate(kBlockRows * widest);
        floats.allocate(kBlockRows * widest / 16 * 3);
        ints.allocate(kBlockRows * widest / 16 * 3);
    }
    Buffer<float> sums;      // (kBlockRows, hidden)
    Buffer<float> inner;     // (kBlockRows, ffn)
    Buffer<uint16_t> pairs;  // (kBlockRows, hidden or ffn), a product's input as bf16
    Buffer<int8_t> values;   // the same as a QuantRows
    Buffer<float> floats;
    Buffer<int32_t> ints;
};

// Keys and values of one head of one sequence, its queries, and a softmax in progress.
struct Encoder::HeadScratch {
    HeadScratch(int max_len, int head_dim) {
        const int num_blocks = (max_len + kAttendSplit - 1) / kAttendSplit;
        const ptrdiff_t bytes = kv_head_bytes(KvType::bf16, kAttendSplit, head_dim);
        kv.allocate((size_t)num_blocks * 2 * bytes);
        queries.allocate((size_t)kMaxAttendRows * head_dim);
        for (Buffer<float>* part : {&total, &part_}) part->allocate((size_t)kMaxAttendRows * (head_dim + 2));
        blocks.resize(num_blocks);
        for (int i = 0; i < num_blocks; i++) blocks[i] = i;
    }
    static Partial partial_of(const Buffer<float>& memory) {
        return {memory.data(), memory.data() + kMaxAttendRows, memory.data() + 2 * kMaxAttendRows};
    }
    Buffer<uint8_t> kv;
    Buffer<float> queries;  // (kMaxAttendRows, head_dim)
    Buffer<float> total, part_;
    std::vector<int32_t> blocks;
    int begin[kMaxAttendRows] = {}, end[kMaxAttendRows];
};

Encoder::Encoder(EncoderSpec spec, int max_num_tokens, int num_threads)
    : spec_(std::move(spec)),
      head_dim_(spec_.num_heads > 0 ? spec_.hidden_size / spec_.num_heads : 0),
      max_num_tokens_(max_num_tokens),
      kernels_(kernels()),
      pool_((require(num_threads >= 1 && num_threads <= 1024, "encoder: num_threads must be 1 .. 1024"), num_threads)) {
    require(spec_.hidden_size >= 32 && spec_.hidden_size % 32 == 0 && spec_.ffn_size >= 32 && spec_.ffn_size % 32 == 0,
            "the native encoder needs hidden and ffn sizes that are multiples of 32");
    require(spec_.num_heads >= 1 && head_dim_ * spec_.num_heads == spec_.hidden_size && head_dim_ % 16 == 0 &&
                head_dim_ <= kMaxHeadDim,
            "the native encoder needs a head size that is a multiple of 16 and at most 512");
    require(spec_.vocab_size >= 1 && spec_.max_position >= 1 && spec_.num_layers >= 1 && spec_.num_types >= 0,
            "encoder: sizes must be at least 1");
    require(max_num_tokens >= 1 && max_num_tokens <= 1 << 20, "encoder: max_num_tokens must be 1 .. 1048576");
}

Encoder::~Encoder() = default;

void Encoder::set_table(const std::string& name, int type, const uint8_t* rows, size_t row_bytes, size_t num_rows) {
    check_rows(name, type, row_bytes, spec_.hidden_size);
    tables_[name] = {type, rows, row_bytes, num_rows};
}

void Encoder::add_matrix(const std::string& name, int type, const uint8_t* rows, size_t row_bytes, int num_rows,
                         int num_cols, bool in_pairs) {
    require(!is_finished_, name + ": the encoder is finished");
    require(num_cols % 32 == 0, name + ": the native encoder needs rows of a multiple of 32 values");
    require(!in_pairs || type == kBf16, name + ": only BF16 rows are multiplied in pairs");
    check_rows(name, type, row_bytes, num_cols);
    auto matrix = std::make_unique<Matrix>();
    matrix->in_pairs = in_pairs;
    matrix->is_float = type == kF32 || type == kF16 || type == kBf16;
    const size_t bytes = packed_bytes(type, num_rows, num_cols);
    packed_memory_.emplace_back(bytes);
    num_packed_bytes_ += bytes;
    uint8_t* data = packed_memory_.back().data();
    matrix->packed = make_packed(type, num_rows, num_cols, data);
    pool_.each(matrix->packed.num_panels, [&](int, int panel) {
        if (in_pairs)
            pack_pairs((const uint16_t*)rows, num_rows, num_cols, panel, panel + 1, (uint16_t*)data);
        else
            pack(type, rows, row_bytes, num_rows, num_cols, panel, panel + 1, data);
    });
    matrices_[name] = std::move(matrix);
}

void Encoder::add_vector(const std::string& name, std::span<const float> values) {
    require(!is_finished_, name + ": the encoder is finished");
    vectors_[name].assign(values.begin(), values.end());
}

const float* Encoder::vector_of(const std::string& name, int size) const {
    auto found = vectors_.find(name);
    require(found != vectors_.end(), "missing tensor " + name);
    require((int)found->second.size() == size, name + " has " + std::to_string(found->second.size()) +
                                                   " values, expected " + std::to_string(size));
    return found->second.data();
}

Encoder::Dense Encoder::dense_of(const std::string& name, int size, int num_cols) const {
    auto found = matrices_.find(name);
    require(found != matrices_.end(), "missing tensor " + name);
    const Matrix& matrix = *found->second;
    require(matrix.packed.n == size && matrix.packed.k == num_cols,
            name + " is " + std::to_string(matrix.packed.n) + " x " + std::to_string(matrix.packed.k) + ", expected " +
                std::to_string(size) + " x " + std::to_string(num_cols));
    return {&matrix, vector_of(name + "_bias", size)};
}

Encoder::Norm Encoder::norm_of(const std::string& name) const {
    return {vector_of(name, spec_.hidden_size), vector_of(name + "_bias", spec_.hidden_size)};
}

void Encoder::finish() {
    require(!is_finished_, "the encoder is finished");
    const int hidden = spec_.hidden_size, ffn = spec_.ffn_size;
    for (auto [name, count] : {std::pair{"word", spec_.vocab_size}, {"position", spec_.max_position}, {"type", spec_.num_types}})
        require(tables_[name].num_rows >= (size_t)count, std::string(name) + " has " + std::to_string(tables_[name].num_rows) +
                                                             " rows, expected " + std::to_string(count));
    embed_norm_ = norm_of("embed_norm");
    for (int i = 0; i < spec_.num_layers; i++) {
        const std::string at = "layers." + std::to_string(i) + ".";
        layers_.push_back({dense_of(at + "qkv", 3 * hidden, hidden), dense_of(at + "o", hidden, hidden),
                           dense_of(at + "up", ffn, hidden), dense_of(at + "down", hidden, ffn),
                           norm_of(at + "attn_norm"), norm_of(at + "ffn_norm")});
    }
    int width = hidden;
    for (size_t i = 0; i < spec_.heads.size(); i++) {
        const HeadSpec& head = spec_.heads[i];
        require(head.size >= 1 && head.activation >= 0 && head.activation <= 2, "encoder: a head is not valid");
        heads_.push_back(dense_of("heads." + std::to_string(i), head.size, width));
        require(heads_.back().weight->is_float && !heads_.back().weight->in_pairs, "heads are multiplied in fp32");
        width = head.size;
    }
    const size_t tokens = max_num_tokens_;
    x_.allocate(tokens * hidden);
    qkv_.allocate(tokens * 3 * hidden);
    attention_.allocate(tokens * hidden);
    for (int t = 0; t < pool_.num_threads(); t++) {
        row_scratch_.push_back(std::make_unique<RowScratch>(spec_));
        head_scratch_.push_back(std::make_unique<HeadScratch>(std::min(max_num_tokens_, spec_.max_position), head_dim_));
    }
    is_finished_ = true;
}

void Encoder::check(const EncoderBatch& batch, std::span<float> out) const {
    require(is_finished_, "encode: the encoder is not finished");
    const size_t num_tokens = batch.token_ids.size(), num_seqs = batch.starts.size() - 1;
    require(num_tokens <= (size_t)max_num_tokens_, "encode: token_ids: at most " + std::to_string(max_num_tokens_));
    require(batch.type_ids.size() == num_tokens, "encode: type_ids: one for each token");
    require(!batch.starts.empty() && batch.starts[0] == 0 && (size_t)batch.starts.back() == num_tokens,
            "encode: starts: must begin with 0 and end with the number of tokens");
    for (size_t s = 0; s < num_seqs; s++) {
        const int64_t length = (int64_t)batch.starts[s + 1] - batch.starts[s];
        require(length >= 1 && length <= spec_.max_position,
                "encode: starts: sequences must have 1 .. " + std::to_string(spec_.max_position) + " tokens");
    }
    for (int32_t id : batch.token_ids)
        require(id >= 0 && id < spec_.vocab_size, "encode: token_ids: must be 0 .. " + std::to_string(spec_.vocab_size - 1));
    for (int32_t id : batch.type_ids)
        require(id >= 0 && id < std::max(spec_.num_types, 1), "encode: type_ids: out of range");
    const size_t size = batch.pooling == Pooling::none ? num_tokens * spec_.hidden_size : num_seqs * out_size();
    require(out.size() == size, "encode: out: must hold " + std::to_string(size) + " values");
}

void Encoder::encode(const EncoderBatch& batch, std::span<float> out) {
    std::unique_lock lock(running_, std::try_to_lock);
    if (!lock) throw std::runtime_error("encode: another batch of this encoder is running");
    require(!batch.starts.empty(), "encode: starts: must not be empty");
    check(batch, out);
    num_tokens_ = (int)batch.token_ids.size();
    embed(batch);
    plan_attention(batch);
    each_row_block([&](auto& team, RowScratch& scratch, int begin, int end) { project(team, scratch, layers_[0], begin, end); });
    for (size_t i = 0; i < layers_.size(); i++) {
        pool_.each((int)items_.size(), [&](int thread, int item) { attend(*head_scratch_[thread], items_[item]); });
        each_row_block([&](auto& team, RowScratch& scratch, int begin, int end) {
            finish_layer(team, scratch, layers_[i], begin, end);
            if (i + 1 < layers_.size()) project(team, scratch, layers_[i + 1], begin, end);
        });
    }
    if (batch.pooling == Pooling::none) {
        std::copy_n(x_.data(), out.size(), out.data());
        return;
    }
    float* pooled = heads_.empty() ? out.data() : attention_.data();
    pool_rows(batch, pooled);
    if (!heads_.empty()) run_heads((int)batch.starts.size() - 1, pooled, out);
}

void Encoder::embed(const EncoderBatch& batch) {
    const int hidden = spec_.hidden_size;
    auto row_of = [&](const Table& table, size_t row, float* out) {
        dequantize_row(table.type, table.rows + row * table.row_bytes, hidden, out);
    };
    const Table &words = tables_.at("word"), &positions = tables_.at("position"), &types = tables_.at("type");
    pool_.each((int)batch.starts.size() - 1, [&](int thread, int seq) {
        float* other = row_scratch_[thread]->sums.data();
        for (int t = batch.starts[seq]; t < batch.starts[seq + 1]; t++) {
            float* row = x_.data() + (size_t)t * hidden;
            row_of(words, batch.token_ids[t], row);
            if (spec_.num_types > 0) row_of(types, batch.type_ids[t], other), kernels_.add(row, other, hidden);
            row_of(positions, t - batch.starts[seq], other);
            kernels_.add(row, other, hidden);
            kernels_.encoder.layer_norm(row, embed_norm_.weight, embed_norm_.bias, spec_.norm_eps, hidden);
        }
    });
}

// f(team, scratch, begin, end) over all rows: blocks of them, each on a thread of its own, or, when there are too few, all
// threads together on the columns of each product.
template <class F>
void Encoder::each_row_block(F f) {
    const int threads = pool_.num_threads();
    if (num_tokens_ < threads * kSplitRows && num_tokens_ <= kBlockRows) {
        f(pool_, *row_scratch_[0], 0, num_tokens_);
        return;
    }
    const int full = (num_tokens_ + kBlockRows - 1) / kBlockRows;
    const int blocks = (full + threads - 1) / threads * threads;
    pool_.each(std::min(blocks, num_tokens_), [&](int thread, int block) {
        Solo solo;
        const int count = std::min(blocks, num_tokens_);
        f(solo, *row_scratch_[thread], piece_at(num_tokens_, block, count), piece_at(num_tokens_, block + 1, count));
    });
}

template <class Team>
void Encoder::project(Team& team, RowScratch& scratch, const Layer& layer, int begin, int end) {
    const size_t hidden = spec_.hidden_size;
    multiply(team, scratch, layer.qkv, x_.data() + begin * hidden, end - begin, RowActivation::none, qkv_.data() + begin * 3 * hidden);
}

template <class Team>
void Encoder::finish_layer(Team& team, RowScratch& scratch, const Layer& layer, int begin, int end) {
    const size_t at = (size_t)begin * spec_.hidden_size;
    const int count = end - begin;
    float *sums = scratch.sums.data(), *inner = scratch.inner.data();
    multiply(team, scratch, layer.o, attention_.data() + at, count, RowActivation::none, sums);
    add_norm(team, sums, layer.attn_norm, begin, end);
    multiply(team, scratch, layer.up, x_.data() + at, count, spec_.activation, inner);
    multiply(team, scratch, layer.down, inner, count, RowActivation::none, sums);
    add_norm(team, sums, layer.ffn_norm, begin, end);
}

// out (num_rows, size) = act(x (num_rows, input) times the weights + bias)
template <class Team>
void Encoder::multiply(Team& team, RowScratch& scratch, const Dense& dense, const float* x, int num_rows,
                       RowActivation act, float* out) {
    const Matrix& matrix = *dense.weight;
    const int k = dense.input(), n = dense.size(), panels = matrix.packed.num_panels;
    const QuantRows quant = make_quant_rows(num_rows, k, scratch.values.data(), scratch.floats.data(), scratch.ints.data());
    if (matrix.in_pairs)
        team.each(num_tiles(num_rows), [&](int, int tile) {
            const size_t first = tile_start(num_rows, tile), count = tile_start(num_rows, tile + 1) - first;
            kernels_.encoder.round_to_bf16(x + first * k, (int)count * k, scratch.pairs.data() + first * k);
        });
    else if (!matrix.is_float)
        team.each(num_tiles(num_rows), [&](int, int tile) {
            kernels_.quantize_rows(x, k, tile_start(num_rows, tile), tile_start(num_rows, tile + 1), quant);
        });
    const int pieces = std::min(panels, team.num_threads() == 1 ? 1 : 2 * team.num_threads());
    team.each(pieces, [&](int, int piece) {
        const int from = piece_at(panels, piece, pieces), to = piece_at(panels, piece + 1, pieces);
        if (matrix.in_pairs)
            kernels_.encoder.gemm_pairs(matrix.packed, scratch.pairs.data(), k, num_rows, from, to, out, n);
        else if (matrix.is_float)
            kernels_.gemm_float(matrix.packed, x, k, num_rows, from, to, out, n, false);
        else
            kernels_.gemm_quant(matrix.packed, quant, from, to, out, n, false);
        const int column = from * kPanelColumns, count = to * kPanelColumns - column;
        for (int r = 0; r < num_rows; r++)
            kernels_.encoder.add_and_activate(act, out + (size_t)r * n + column, dense.bias + column, count);
    });
}

// x = norm(x + sums) on rows [begin, end); sums begin at row `begin`
template <class Team>
void Encoder::add_norm(Team& team, const float* sums, const Norm& norm, int begin, int end) {
    const int hidden = spec_.hidden_size, pieces = std::min(end - begin, team.num_threads());
    team.each(pieces, [&](int, int piece) {
        const int to = piece_at(end - begin, piece + 1, pieces);
        for (int r = piece_at(end - begin, piece, pieces); r < to; r++) {
            float* row = x_.data() + (size_t)(begin + r) * hidden;
            kernels_.add(row, sums + (size_t)r * hidden, hidden);
            kernels_.encoder.layer_norm(row, norm.weight, norm.bias, spec_.norm_eps, hidden);
        }
    });
}

void Encoder::plan_attention(const EncoderBatch& batch) {
    items_.clear();
    for (size_t s = 0; s + 1 < batch.starts.size(); s++) {
        const int begin = batch.starts[s], end = batch.starts[s + 1];
        for (int head = 0; head < spec_.num_heads; head++)
            for (int q = begin; q < end; q += kQueries) items_.push_back({begin, end, q, std::min(end, q + kQueries), head});
    }
}

void Encoder::attend(HeadScratch& scratch, const AttendItem& item) {
    const ptrdiff_t hidden = spec_.hidden_size, bytes = kv_head_bytes(KvType::bf16, kAttendSplit, head_dim_);
    const KvKernels& kernels = kernels_.kv[(int)KvType::bf16];
    for (int t = item.begin; t < item.end; t++) {
        const int position = t - item.begin;
        const float* k = qkv_.data() + t * 3 * hidden + hidden + item.head * head_dim_;
        uint8_t* block = scratch.kv.data() + position / kAttendSplit * 2 * bytes;
        kernels.store(k, k + hidden, head_dim_, kAttendSplit, position % kAttendSplit, block, block + bytes);
    }
    const KvView kv{scratch.kv.data(), scratch.blocks.data(), 2 * bytes, 0, bytes, kAttendSplit, head_dim_};
    for (int from = item.query_begin; from < item.query_end; from += kMaxAttendRows)
        attend_tile(scratch, item, kv, from, std::min(item.query_end, from + kMaxAttendRows));
}

// Queries [from, to) against all keys of the sequence.
void Encoder::attend_tile(HeadScratch& scratch, const AttendItem& item, const KvView& kv, int from, int to) {
    const int length = item.end - item.begin, count = to - from;
    const ptrdiff_t hidden = spec_.hidden_size, column = item.head * (ptrdiff_t)head_dim_;
    for (int r = 0; r < count; r++)
        std::copy_n(qkv_.data() + (from + r) * 3 * hidden + column, head_dim_, scratch.queries.data() + (size_t)r * head_dim_);
    kernels_.scale(scratch.queries.data(), 1.0f / std::sqrt((float)head_dim_), count * head_dim_);
    std::fill_n(scratch.end, count, length);
    const AttendRows rows{count, scratch.queries.data(), scratch.begin, scratch.end, 0};
    const Partial total = HeadScratch::partial_of(scratch.total), part = HeadScratch::partial_of(scratch.part_);
    const auto attend = kernels_.kv[(int)KvType::bf16].attend;
    attend(kv, rows, 0, kAttendSplit, total);
    for (int key = kAttendSplit; key < length; key += kAttendSplit) {
        attend(kv, rows, key, key + kAttendSplit, part);
        kernels_.merge(total, part, count, head_dim_);
    }
    for (int r = 0; r < count; r++) {
        float* out = attention_.data() + (from + r) * hidden + column;
        std::copy_n(total.out + (size_t)r * head_dim_, head_dim_, out);
        kernels_.scale(out, 1.0f / total.sum[r], head_dim_);
    }
}

// out: (S, hidden)
void Encoder::pool_rows(const EncoderBatch& batch, float* out) {
    const size_t hidden = spec_.hidden_size;
    for (size_t s = 0; s + 1 < batch.starts.size(); s++) {
        const int begin = batch.starts[s], end = batch.starts[s + 1];
        float* row = out + s * hidden;
        const int first = batch.pooling == Pooling::last ? end - 1 : begin;
        std::copy_n(x_.data() + first * hidden, hidden, row);
        if (batch.pooling != Pooling::mean) continue;
        for (int t = begin + 1; t < end; t++) kernels_.add(row, x_.data() + t * hidden, (int)hidden);
        kernels_.scale(row, 1.0f / (float)(end - begin), (int)hidden);
    }
}

// pooled: (num_rows, hidden). The last head writes to out.
void Encoder::run_heads(int num_rows, float* pooled, std::span<float> out) {
    std::vector<float> now, next;
    const float* x = pooled;
    for (size_t i = 0; i < heads_.size(); i++) {
        const Dense& head = heads_[i];
        const int size = head.size(), activation = spec_.heads[i].activation;
        next.resize((size_t)num_rows * size);
        kernels_.gemm_float(head.weight->packed, x, head.input(), num_rows, 0, head.weight->packed.num_panels, next.data(), size, false);
        for (size_t at = 0; at < next.size(); at++) {
            const float value = next[at] + head.bias[at % size];
            next[at] = activation == 1 ? std::tanh(value) : activation == 2 ? std::max(value, 0.0f) : value;
        }
        std::swap(now, next);
        x = now.data();
    }
    std::copy(now.begin(), now.end(), out.begin());
}

}  // namespace inferd
