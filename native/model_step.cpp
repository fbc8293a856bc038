// One step: stages one after another, each cut into pieces for the threads: row operations by row tiles (and columns),
// matrix products by output columns, attention by items. How a stage is cut changes no bit of a row.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dequant.h"
#include "model_scratch.h"

namespace inferd {

namespace {

// Handing out a piece costs about 0.2 us; these keep pieces above 1 us and below the time a core is lent to others.
constexpr int kTokensPerWrite = 16;       // tokens of one cache line of K
// Weights of a product in one piece, less by the rows: whoever works on a piece gathers its rows' numbers and meets a cold
// first panel. 64 KB / (1 + rows / 8) was 20 to 50 % slower at 32 rows.
constexpr double kPieceBytes = 512 << 10;
constexpr double kRowsPerPiece = 64;

// One tile of row-packed activations, columns [k_begin, k_begin + k_size): itself a QuantRows, so that pieces of a tile
// can be quantized apart. k_begin is a multiple of kGroup.
QuantRows tile_part(const QuantRows& all, int tile, int k_begin, int k_size) {
    const ptrdiff_t start = tile_start(all.num_rows, tile), rows = tile_start(all.num_rows, tile + 1) - start;
    const ptrdiff_t block = start * (all.k / 32) + k_begin / 32 * rows;  // row blocks before the part
    return {(int)rows, k_size, all.q + block * 32, all.scale + start * num_groups(all.k) + k_begin / kGroup * rows,
            all.factors + block * 5, all.offsets + block * 4};
}

}  // namespace

uint8_t* Model::block_at(int layer, int block) const {
    return kv_memory_.data() + ((ptrdiff_t)layer * limits_.num_blocks + block) * block_bytes_;
}

void Model::step(const Batch& batch, const StepOutput& out) {
    std::unique_lock lock(running_, std::try_to_lock);
    if (!lock) throw std::runtime_error("step: another step of this model is running");
    const StageClock::Step clock(batch.token_ids.size());
    check(batch, out);
    plan_adapters(batch);
    plan_tokens(batch);
    plan_attention(batch);
    copy_blocks(batch);
    StageClock::enter("embed");
    embed(batch);
    for (int i = 0; i < (int)layers_.size(); i++) run_layer(i, batch);
    run_head(batch, out);
}

void Model::plan_tokens(const Batch& batch) {
    num_tokens_ = (int)batch.token_ids.size();
    for (size_t s = 0; s < batch.context_lens.size(); s++)
        for (int t = batch.query_starts[s]; t < batch.query_starts[s + 1]; t++) {
            position_[t] = batch.context_lens[s] + t - batch.query_starts[s];
            seq_of_[t] = (int)s;
        }
}

void Model::copy_blocks(const Batch& batch) {
    for (size_t i = 0; i < batch.block_copies.size(); i += 2)
        for (int layer = 0; layer < (int)spec_.layers.size(); layer++)
            std::memcpy(block_at(layer, batch.block_copies[i + 1]), block_at(layer, batch.block_copies[i]), block_bytes_);
}

void Model::embed(const Batch& batch) {
    const int hidden = spec_.hidden_size;
    pool_.each(num_tokens_, [&](int, int t) {
        float* row = x_.data() + (size_t)t * hidden;
        dequantize_row(embedding_type_, embedding_ + batch.token_ids[t] * embedding_row_bytes_, hidden, row);
        if (spec_.embedding_scale != 1) kernels_.scale(row, spec_.embedding_scale, hidden);
    });
}

void Model::run_layer(int index, const Batch& batch) {
    const Layer& layer = layers_[index];
    const int hidden = spec_.hidden_size, q_size = spec_.num_heads * spec_.head_dim, num_rows = num_tokens_;
    const ptrdiff_t ld_qkv = q_size + 2 * spec_.num_kv_heads * spec_.head_dim;
    const bool accumulate = !spec_.post_norms;
    float* block_out = spec_.post_norms ? block_out_.data() : x_.data();
    auto normed = [&](const float* post_norm, const float* norm) {
        return [=, this](int begin, int end, float* out, bool keep) {
            return normed_rows(post_norm, norm, begin, end, out, keep);
        };
    };
    StageClock::enter("qkv");
    const float* post_ffn_norm = index > 0 ? layers_[index - 1].post_ffn_norm : nullptr;
    multiply(layer.qkv, num_rows, normed(post_ffn_norm, layer.attn_norm), qkv_.data(), ld_qkv, false);
    if (spec_.post_norms && index > 0) std::swap(x_, next_x_);
    StageClock::enter("write_kv");
    if (writes_first_) write_kv(index, batch);
    StageClock::enter("attend");
    attend_items(index, batch);
    StageClock::enter("o");
    multiply(layer.o, num_rows, [&](int, int, float*, bool) { return attention_.data(); }, block_out, hidden, accumulate);
    StageClock::enter("gate_up");
    each_piece((spec_.ffn_size + kGroup - 1) / kGroup, num_rows, layer.gate_up, normed(layer.post_attn_norm, layer.ffn_norm),
               [&](int thread, int group, const Input& in) {
                   gate_up_group(layer, in, group, scratch_[thread]->gate_up.data());
               });
    if (spec_.post_norms) std::swap(x_, next_x_);
    StageClock::enter("down");
    const Input down{hidden_.data(), ffn_quant_.view(num_rows, spec_.ffn_size)};
    if (const int shrinks = num_shrinks(layer.down))
        pool_.each(shrinks, [&](int, int item) { shrink(layer.down, item, hidden_.data()); });
    const int pieces = num_pieces(layer.down, num_rows);
    pool_.each(pieces, [&](int, int piece) {
        const int from = layer.down.num_panels * piece / pieces, to = layer.down.num_panels * (piece + 1) / pieces;
        multiply_part(layer.down, 0, down, from, to, block_out, hidden, accumulate);
    });
}

// f(thread, piece, input) for every piece of a product. rows(begin, end, out, keep) makes rows [begin, end) of the input
// in `out`, (num_rows, k), or anywhere, and returns where row 0 is; what it must change once, it changes when `keep` is set.
template <class Rows, class F>
void Model::each_piece(int num_pieces, int num_rows, const Linear& linear, Rows rows, F f) {
    const int k = linear.parts[0]->packed.k;
    stage_++;
    auto prepare = [&](Input& in, int tile, float* out, bool keep) {
        const int begin = tile_start(num_rows, tile), end = tile_start(num_rows, tile + 1);
        in.x = rows(begin, end, out, keep);
        if (linear.needs_quant)
            kernels_.quantize_rows(in.x + (size_t)begin * k, k, 0, end - begin, tile_part(in.quant, tile, 0, k));
    };
    const int shrinks = num_shrinks(linear);
    if (num_rows <= kOwnRows) {
        auto own_input = [&](int thread, bool keep) {
            ThreadScratch& own = *scratch_[thread];
            Input in{own.input, own.quant.view(num_rows, k)};
            if (own.stage != stage_ || keep)
                for (int tile = 0; tile < num_tiles(num_rows); tile++) prepare(in, tile, own.rows.data(), keep);
            own.stage = stage_;
            own.input = in.x;
            return in;
        };
        if (shrinks) pool_.each(shrinks, [&](int thread, int item) { shrink(linear, item, own_input(thread, false).x); });
        pool_.each(num_pieces, [&](int thread, int piece) { f(thread, piece, own_input(thread, piece == 0)); });
        return;
    }
    const Input in{rows(0, 0, normed_.data(), false), quant_.view(num_rows, k)};
    const char* product = StageClock::enter("prepare");
    pool_.each(num_tiles(num_rows), [&](int, int tile) {
        Input part = in;
        prepare(part, tile, normed_.data(), true);
    });
    StageClock::enter(product);
    if (shrinks) pool_.each(shrinks, [&](int, int item) { shrink(linear, item, in.x); });
    pool_.each(num_pieces, [&](int thread, int piece) { f(thread, piece, in); });
}

// Products are cut into about this many pieces, a multiple of the threads where there are panels enough.
int Model::num_pieces(const Linear& linear, int num_rows) const {
    const int threads = pool_.num_threads();
    const double work = (double)linear.num_bytes * (1 + num_rows / kRowsPerPiece) / kPieceBytes;
    const int wanted = (int)std::min(work, (double)linear.num_panels);
    return std::min((wanted + threads - 1) / threads * threads + (wanted == 0) * threads, linear.num_panels);
}

// out (num_rows, columns of all parts) (+)= input times the linear's weights. Pieces are runs of panels over all parts.
template <class Rows>
void Model::multiply(const Linear& linear, int num_rows, Rows rows, float* out, ptrdiff_t ldout, bool accumulate) {
    const int pieces = num_pieces(linear, num_rows);
    each_piece(pieces, num_rows, linear, rows, [&](int, int piece, const Input& in) {
        const int from = (int)((int64_t)linear.num_panels * piece / pieces);
        const int to = (int)((int64_t)linear.num_panels * (piece + 1) / pieces);
        int at = 0;
        float* columns = out;
        for (int part = 0; part < (int)linear.parts.size(); part++) {
            const PackedMatrix& packed = linear.parts[part]->packed;
            const int begin = std::clamp(from - at, 0, packed.num_panels), end = std::clamp(to - at, 0, packed.num_panels);
            if (begin < end) multiply_part(linear, part, in, begin, end, columns, ldout, accumulate);
            at += packed.num_panels;
            columns += packed.n;
        }
    });
}

// Panels [begin, end) of one part, adapters included; out: where column 0 of the part is.
void Model::multiply_part(const Linear& linear, int part, const Input& in, int begin, int end, float* out, ptrdiff_t ldout,
                          bool accumulate) {
    const Matrix& matrix = *linear.parts[part];
    multiply_panels(matrix.packed, matrix.is_float, in, begin, end, out, ldout, accumulate);
    if (adapter_groups_.empty() || linear.first_target < 0) return;
    const int first = begin * kPanelColumns, last = std::min(end * kPanelColumns, matrix.packed.n);
    expand(linear, part, first, last, out + first, ldout);
}

void Model::multiply_panels(const PackedMatrix& packed, bool is_float, const Input& in, int begin, int end, float* out,
                            ptrdiff_t ldout, bool accumulate) {
    if (is_float)
        kernels_.gemm_float(packed, in.x, in.quant.k, in.quant.num_rows, begin, end, out, ldout, accumulate);
    else
        kernels_.gemm_quant(packed, in.quant, begin, end, out, ldout, accumulate);
}

// One group of kGroup columns of the gated hidden state, ready for the down product. gate_up: scratch, (rows, 2 kGroup).
void Model::gate_up_group(const Layer& layer, const Input& in, int group, float* gate_up) {
    const int ffn = spec_.ffn_size, first = group * kGroup, size = std::min(kGroup, ffn - first);
    const int num_rows = in.quant.num_rows;
    constexpr ptrdiff_t ld = 2 * kGroup;
    for (int half = 0; half < 2; half++) {
        const Matrix& matrix = *layer.gate_up.parts[half];
        PackedMatrix columns = matrix.packed;
        columns.data += first / kPanelColumns * columns.panel_bytes;
        columns.n = size;
        columns.num_panels = size / kPanelColumns;
        multiply_panels(columns, matrix.is_float, in, 0, columns.num_panels, gate_up + half * kGroup, ld, false);
        if (!adapter_groups_.empty()) expand(layer.gate_up, half, first, first + size, gate_up + half * kGroup, ld);
    }
    const bool quantize = layer.down.needs_quant, keep = !quantize || !adapter_groups_.empty();
    float* gated = keep ? hidden_.data() + first : gate_up;
    const ptrdiff_t ld_gated = keep ? ffn : ld;
    const QuantRows quant = ffn_quant_.view(num_rows, ffn);
    for (int tile = 0; tile < num_tiles(num_rows); tile++) {
        const int begin = tile_start(num_rows, tile), end = tile_start(num_rows, tile + 1);
        for (int t = begin; t < end; t++) {
            const float* gate = gate_up + t * ld;
            kernels_.gated(spec_.activation, gate, gate + kGroup, size, gated + t * ld_gated);
        }
        const QuantRows part = tile_part(quant, tile, first, size);
        if (quantize) kernels_.quantize_rows(gated + begin * ld_gated, ld_gated, 0, end - begin, part);
    }
}

// Row `row` of the residual stream after the block before, whose output models with post norms have yet to add.
void Model::residual_row(const float* post_norm, int row, float* out) const {
    const size_t hidden = spec_.hidden_size, at = row * hidden;
    kernels_.rms_norm(block_out_.data() + at, post_norm, spec_.norm_eps, (int)hidden, out);
    kernels_.add(out, x_.data() + at, (int)hidden);
}

// Rows [begin, end) of the next product's input. keep: the residual stream goes into next_x_.
const float* Model::normed_rows(const float* post_norm, const float* norm, int begin, int end, float* out, bool keep) {
    const int hidden = spec_.hidden_size;
    for (int t = begin; t < end; t++) {
        float* row = out + (size_t)t * hidden;
        const float* x = x_.data() + (size_t)t * hidden;
        if (post_norm) {
            residual_row(post_norm, t, row);
            if (keep) std::memcpy(next_x_.data() + (size_t)t * hidden, row, sizeof(float) * hidden);
            x = row;
        }
        kernels_.rms_norm(x, norm, spec_.norm_eps, hidden, row);
    }
    return out;
}

// K and V of the tokens whose attention items do not write them.
void Model::write_kv(int index, const Batch& batch) {
    const int kv_heads = spec_.num_kv_heads;
    auto num_new_tokens = [&](int seq) { return batch.query_starts[seq + 1] - batch.query_starts[seq]; };
    pool_.each((num_tokens_ + kTokensPerWrite - 1) / kTokensPerWrite, [&](int, int piece) {
        const int end = std::min(num_tokens_, (piece + 1) * kTokensPerWrite);
        for (int t = piece * kTokensPerWrite; t < end; t++)
            for (int h = 0; h < kv_heads && !item_writes(num_new_tokens(seq_of_[t])); h++)
                write_token(index, t, h, batch);
    });
}

// Bias, norm and RoPE on K, bias on V, of one token and one kv head; then into the cache.
void Model::write_token(int index, int token, int kv_head, const Batch& batch) {
    const Layer& layer = layers_[index];
    const int dim = spec_.head_dim, heads = spec_.num_heads, kv_heads = spec_.num_kv_heads, size = limits_.block_size;
    const int position = position_[token];
    const ptrdiff_t at = (ptrdiff_t)kv_head * dim;
    float* k = qkv_.data() + (ptrdiff_t)token * (heads + 2 * kv_heads) * dim + heads * dim + at;
    float* v = k + kv_heads * dim;
    rotate(index, position, spec_.qkv_bias ? layer.k_bias + at : nullptr, layer.k_norm, k);
    if (spec_.qkv_bias) kernels_.add(v, layer.v_bias + at, dim);
    uint8_t* data = block_at(index, batch.block_tables[(size_t)seq_of_[token] * batch.max_num_blocks + position / size]);
    kv_kernels_.store(k, v, dim, size, position % size, data + kv_head * kv_head_bytes_,
                      data + (kv_heads + kv_head) * kv_head_bytes_);
}

// One head of q or k as the product left it: bias, norm (nullptr: none) and RoPE.
void Model::rotate(int index, int position, const float* bias, const float* norm, float* head) const {
    const int dim = spec_.head_dim, rope = spec_.layers[index].rope, half = spec_.ropes[rope].dims / 2;
    if (bias) kernels_.add(head, bias, dim);
    if (norm) kernels_.rms_norm(head, norm, spec_.norm_eps, dim, head);
    const size_t at = (size_t)position * half;
    kernels_.rope(head, cosines_[rope].data() + at, sines_[rope].data() + at, half);
}

// Final norm, logits and sampling of the asked rows, head_rows_ at a time.
void Model::run_head(const Batch& batch, const StepOutput& out) {
    const int hidden = spec_.hidden_size, num_rows = (int)batch.logit_rows.size();
    const float* post_norm = spec_.post_norms ? layers_.back().post_ffn_norm : nullptr;
    for (int first = 0; first < num_rows; first += head_rows_) {
        const int count = std::min(head_rows_, num_rows - first);
        auto normed = [&](int begin, int end, float* rows, bool) {
            for (int r = begin; r < end; r++) {
                const int t = batch.logit_rows[first + r];
                float* row = rows + (size_t)r * hidden;
                if (post_norm) residual_row(post_norm, t, row);
                kernels_.rms_norm(post_norm ? row : x_.data() + (size_t)t * hidden, final_norm_, spec_.norm_eps, hidden, row);
            }
            return (const float*)rows;
        };
        StageClock::enter("head");
        multiply(head_, count, normed, logits_.data(), spec_.vocab_size, false);
        StageClock::enter("sample");
        pool_.each(count, [&](int thread, int r) { sample(thread, r, first + r, batch, out); });
    }
}

// Row `row` of the step, whose logits are row `at` of logits_.
void Model::sample(int thread, int at, int row, const Batch& batch, const StepOutput& out) {
    const size_t vocab = spec_.vocab_size;
    std::span<float> logits(logits_.data() + at * vocab, vocab);
    if (spec_.logit_soft_cap != 0) kernels_.soft_cap_all(logits.data(), spec_.logit_soft_cap, (int)vocab);
    if (!out.logits.empty()) std::memcpy(out.logits.data() + row * vocab, logits.data(), logits.size_bytes());
    const size_t top = (size_t)row * out.num_top;
    const RowSample sample = sample_row(kernels_, logits, row_sampling(batch, row), scratch_[thread]->sampler,
                                        out.top_ids.subspan(top, out.num_top), out.top_logprobs.subspan(top, out.num_top));
    out.token_ids[row] = sample.token_id;
    out.logprobs[row] = sample.logprob;
    out.ranks[row] = sample.rank;
}

RowSampling Model::row_sampling(const Batch& batch, int row) const {
    const int p = batch.penalty_starts[row], p_count = batch.penalty_starts[row + 1] - p;
    const int b = batch.bias_starts[row], b_count = batch.bias_starts[row + 1] - b;
    const int words = (spec_.vocab_size + 31) / 32, mask = batch.mask_index[row];
    return {
        batch.temperature[row], batch.top_p[row], batch.min_p[row], batch.typical_p[row], batch.top_k[row],
        batch.seed[row], batch.draw_index[row], batch.repetition_penalty[row], batch.frequency_penalty[row],
        batch.presence_penalty[row], batch.target[row], batch.num_logprobs[row],
        batch.penalty_ids.subspan(p, p_count), batch.penalty_counts.subspan(p, p_count),
        batch.bias_ids.subspan(b, b_count), batch.bias_values.subspan(b, b_count),
        mask < 0 ? nullptr : batch.allowed_masks.data() + (size_t)mask * words,
    };
}

}  // namespace inferd
