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
constexpr int kPartValues = 4096;         // activations to quantize
constexpr int kTokensPerWrite = 16;       // tokens of one cache line of K
constexpr double kPieceBytes = 64 << 10;  // weights of a product, ...
constexpr double kRowsPerRead = 8;        // ... where this many rows take as long as reading them

// One tile of row-packed activations, columns [k_begin, k_begin + k_size): itself a QuantRows, so that pieces of a tile
// can be quantized apart. k_begin is a multiple of kGroup.
QuantRows tile_part(const QuantRows& all, int tile, int k_begin, int k_size) {
    const ptrdiff_t start = tile_start(all.num_rows, tile), rows = tile_start(all.num_rows, tile + 1) - start;
    const ptrdiff_t block = start * (all.k / 32) + k_begin / 32 * rows;  // row blocks before the part
    return {(int)rows, k_size, all.q + block * 32, all.scale + start * num_groups(all.k) + k_begin / kGroup * rows,
            all.factors + block * 5, all.offsets + block * 4};
}

}  // namespace

uint16_t* Model::block_at(int layer, int block) const {
    return kv_ + ((ptrdiff_t)layer * limits_.num_blocks + block) * block_stride_;
}

// The quantized form of num_rows rows of k values in the shared scratch.
QuantRows Model::quant_view(int num_rows, int k) {
    return make_quant_rows(num_rows, k, quant_values_.data(), quant_scales_.data(), quant_sums_.data());
}

void Model::step(const Batch& batch, const StepOutput& out) {
    std::unique_lock lock(running_, std::try_to_lock);
    if (!lock) throw std::runtime_error("step: another step of this model is running");
    check(batch, out);
    plan_tokens(batch);
    plan_attention(batch);
    copy_blocks(batch);
    embed(batch);
    for (int i = 0; i < (int)layers_.size(); i++) run_layer(i, batch);
    if (spec_.post_norms) finish_rows(layers_.back().post_ffn_norm);
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
    const size_t bytes = sizeof(uint16_t) * (size_t)block_stride_;
    for (size_t i = 0; i < batch.block_copies.size(); i += 2)
        for (int layer = 0; layer < (int)spec_.layers.size(); layer++)
            std::memcpy(block_at(layer, batch.block_copies[i + 1]), block_at(layer, batch.block_copies[i]), bytes);
}

void Model::embed(const Batch& batch) {
    const int hidden = spec_.hidden_size;
    pool_.each(num_tiles(num_tokens_), [&](int, int tile) {
        for (int t = tile_start(num_tokens_, tile); t < tile_start(num_tokens_, tile + 1); t++) {
            float* row = x_.data() + (size_t)t * hidden;
            dequantize_row(embedding_type_, embedding_ + batch.token_ids[t] * embedding_row_bytes_, hidden, row);
            if (spec_.embedding_scale != 1) kernels_.scale(row, spec_.embedding_scale, hidden);
        }
    });
}

void Model::run_layer(int index, const Batch& batch) {
    const Layer& layer = layers_[index];
    const int hidden = spec_.hidden_size, ffn = spec_.ffn_size, q_size = spec_.num_heads * spec_.head_dim;
    const ptrdiff_t ld_qkv = q_size + 2 * spec_.num_kv_heads * spec_.head_dim;
    const QuantRows quant_hidden = quant_view(num_tokens_, hidden);
    const QuantRows quant_q = quant_view(num_tokens_, q_size);
    const QuantRows quant_ffn = quant_view(num_tokens_, ffn);
    float* block_out = spec_.post_norms ? block_out_.data() : x_.data();
    const bool accumulate = !spec_.post_norms;

    prepare_input(index > 0 ? layers_[index - 1].post_ffn_norm : nullptr, layer.attn_norm, layer.qkv.needs_quant);
    linear(layer.qkv, normed_.data(), hidden, quant_hidden, qkv_.data(), ld_qkv, false);
    write_kv(index, batch);
    attend_items(index, batch);
    if (layer.o.needs_quant)
        each_part(num_tokens_, q_size, [&](int tile, int begin, int size) {
            const float* x = attention_.data() + (size_t)tile_start(num_tokens_, tile) * q_size + begin;
            const QuantRows part = tile_part(quant_q, tile, begin, size);
            kernels_.quantize_rows(x, q_size, 0, part.num_rows, part);
        });
    linear(layer.o, attention_.data(), q_size, quant_q, block_out, hidden, accumulate);
    prepare_input(layer.post_attn_norm, layer.ffn_norm, layer.gate_up.needs_quant);
    linear(layer.gate_up, normed_.data(), hidden, quant_hidden, gate_up_.data(), 2 * ffn, false);
    each_part(num_tokens_, ffn, [&](int tile, int begin, int size) {
        const int first = tile_start(num_tokens_, tile);
        const QuantRows part = tile_part(quant_ffn, tile, begin, size);
        for (int t = first; t < first + part.num_rows; t++) {
            const float* gate = gate_up_.data() + (size_t)t * 2 * ffn + begin;
            kernels_.gated(spec_.activation, gate, gate + ffn, size, hidden_.data() + (size_t)t * ffn + begin);
        }
        if (layer.down.needs_quant)
            kernels_.quantize_rows(hidden_.data() + (size_t)first * ffn + begin, ffn, 0, part.num_rows, part);
    });
    linear(layer.down, hidden_.data(), ffn, quant_ffn, block_out, hidden, accumulate);
}

// f(tile, first column, number of columns) over all columns of all row tiles, on all threads where that pays.
template <class F>
void Model::each_part(int num_rows, int num_cols, F f) {
    const int tiles = num_tiles(num_rows), rows = (num_rows + tiles - 1) / tiles;
    const int wanted = (kPartValues / rows + kGroup - 1) / kGroup * kGroup;
    const int size = std::min(num_cols, wanted), parts = (num_cols + size - 1) / size;
    pool_.each(tiles * parts, [&](int, int i) {
        const int begin = i % parts * size;
        f(i / parts, begin, std::min(size, num_cols - begin));
    });
}

// x += post_norm(block output), one row
void Model::finish_row(const float* post_norm, int row) {
    const int hidden = spec_.hidden_size;
    float* block = block_out_.data() + (size_t)row * hidden;
    kernels_.rms_norm(block, post_norm, spec_.norm_eps, hidden, block);
    kernels_.add(x_.data() + (size_t)row * hidden, block, hidden);
}

void Model::finish_rows(const float* post_norm) {
    pool_.each(num_tiles(num_tokens_), [&](int, int tile) {
        for (int t = tile_start(num_tokens_, tile); t < tile_start(num_tokens_, tile + 1); t++) finish_row(post_norm, t);
    });
}

// Ends the block before (models with post norms), then norm and quantization of x_ for the next product.
void Model::prepare_input(const float* post_norm, const float* norm, bool needs_quant) {
    const int hidden = spec_.hidden_size;
    const QuantRows quant = quant_view(num_tokens_, hidden);
    pool_.each(num_tiles(num_tokens_), [&](int, int tile) {
        const int begin = tile_start(num_tokens_, tile), end = tile_start(num_tokens_, tile + 1);
        for (int t = begin; t < end; t++) {
            if (post_norm) finish_row(post_norm, t);
            const size_t at = (size_t)t * hidden;
            kernels_.rms_norm(x_.data() + at, norm, spec_.norm_eps, hidden, normed_.data() + at);
        }
        if (needs_quant)
            kernels_.quantize_rows(normed_.data() + (size_t)begin * hidden, hidden, 0, end - begin,
                                   tile_part(quant, tile, 0, hidden));
    });
}

// Pieces are runs of panels over the columns of all parts.
void Model::linear(const Linear& linear, const float* x, ptrdiff_t ldx, const QuantRows& quant, float* out,
                   ptrdiff_t ldout, bool accumulate) {
    const int num_rows = quant.num_rows;
    const double work = (double)linear.num_bytes * (1 + num_rows / kRowsPerRead);
    const int wanted = (int)std::min(work / kPieceBytes, (double)linear.num_panels);
    const int pieces = std::clamp(wanted, std::min(pool_.num_threads(), linear.num_panels), linear.num_panels);
    pool_.each(pieces, [&](int, int piece) {
        const int from = (int)((int64_t)linear.num_panels * piece / pieces);
        const int to = (int)((int64_t)linear.num_panels * (piece + 1) / pieces);
        int at = 0;
        float* columns = out;
        for (const Matrix* part : linear.parts) {
            const PackedMatrix& w = part->packed;
            const int begin = std::clamp(from - at, 0, w.num_panels), end = std::clamp(to - at, 0, w.num_panels);
            if (begin < end && part->is_float)
                kernels_.gemm_float(w, x, ldx, num_rows, begin, end, columns, ldout, accumulate);
            else if (begin < end)
                kernels_.gemm_quant(w, quant, begin, end, columns, ldout, accumulate);
            at += w.num_panels;
            columns += w.n;
        }
    });
}

// Bias, head norms and RoPE on q and k, then K and V go into the cache.
void Model::write_kv(int index, const Batch& batch) {
    const int dim = spec_.head_dim, heads = spec_.num_heads, kv_heads = spec_.num_kv_heads, size = limits_.block_size;
    const ptrdiff_t head_size = (ptrdiff_t)size * dim;
    pool_.each((num_tokens_ + kTokensPerWrite - 1) / kTokensPerWrite, [&](int, int piece) {
        const int end = std::min(num_tokens_, (piece + 1) * kTokensPerWrite);
        for (int t = piece * kTokensPerWrite; t < end; t++) {
            float* q = qkv_.data() + (ptrdiff_t)t * (heads + 2 * kv_heads) * dim;
            rotate(index, position_[t], q);
            const int position = position_[t];
            const int block = batch.block_tables[(size_t)seq_of_[t] * batch.max_num_blocks + position / size];
            uint16_t* data = block_at(index, block);
            const float *k = q + heads * dim, *v = k + kv_heads * dim;
            for (int h = 0; h < kv_heads; h++)
                kernels_.store_kv(k + h * dim, v + h * dim, dim, position % size, data + h * head_size,
                                  data + (kv_heads + h) * head_size);
        }
    });
}

// One token's q, k and v as the product left them: q and k as attention wants them, v with its bias.
void Model::rotate(int index, int position, float* qkv) {
    const Layer& layer = layers_[index];
    const int dim = spec_.head_dim, heads = spec_.num_heads, kv_heads = spec_.num_kv_heads;
    const int rope_index = spec_.layers[index].rope, half = spec_.ropes[rope_index].dims / 2;
    if (spec_.qkv_bias) {
        kernels_.add(qkv, layer.q_bias, heads * dim);
        kernels_.add(qkv + heads * dim, layer.k_bias, kv_heads * dim);
        kernels_.add(qkv + (heads + kv_heads) * dim, layer.v_bias, kv_heads * dim);
    }
    const float* cosine = cosines_[rope_index].data() + (size_t)position * half;
    const float* sine = sines_[rope_index].data() + (size_t)position * half;
    for (int h = 0; h < heads + kv_heads; h++) {
        float* head = qkv + h * dim;
        if (spec_.qk_norm) kernels_.rms_norm(head, h < heads ? layer.q_norm : layer.k_norm, spec_.norm_eps, dim, head);
        kernels_.rope(head, cosine, sine, half);
    }
}

// Final norm, logits and sampling of the asked rows, head_rows_ at a time.
void Model::run_head(const Batch& batch, const StepOutput& out) {
    const int hidden = spec_.hidden_size, num_rows = (int)batch.logit_rows.size();
    for (int first = 0; first < num_rows; first += head_rows_) {
        const int count = std::min(head_rows_, num_rows - first);
        const QuantRows quant = quant_view(count, hidden);
        pool_.each(num_tiles(count), [&](int, int tile) {
            const int begin = tile_start(count, tile), end = tile_start(count, tile + 1);
            for (int r = begin; r < end; r++)
                kernels_.rms_norm(x_.data() + (size_t)batch.logit_rows[first + r] * hidden, final_norm_, spec_.norm_eps,
                                  hidden, normed_.data() + (size_t)r * hidden);
            if (head_.needs_quant)
                kernels_.quantize_rows(normed_.data() + (size_t)begin * hidden, hidden, 0, end - begin,
                                       tile_part(quant, tile, 0, hidden));
        });
        linear(head_, normed_.data(), hidden, quant, logits_.data(), spec_.vocab_size, false);
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
