// One step, the same code on every thread (SPMD), barriers between stages. Rows of a stage are shared out by index;
// matrix products by output columns. Neither changes the bits of a row.
#include <algorithm>
#include <cstring>

#include "dequant.h"
#include "model_scratch.h"

namespace inferd {

uint16_t* Model::block_at(int layer, int block) const {
    return kv_ + ((ptrdiff_t)layer * limits_.num_blocks + block) * block_stride_;
}

// The quantized form of num_rows rows of k values in the shared scratch.
QuantRows Model::quant_view(int num_rows, int k) {
    return make_quant_rows(num_rows, k, quant_values_.data(), quant_scales_.data(), quant_sums_.data());
}

void Model::step(const Batch& batch, const StepOutput& out) {
    check(batch, out);
    plan_tokens(batch);
    plan_attention(batch);
    copy_blocks(batch);
    auto body = [&](int thread) { run_thread(thread, batch, out); };
    pool_.run(body);
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

void Model::run_thread(int thread, const Batch& batch, const StepOutput& out) {
    embed(thread, batch);
    for (int i = 0; i < (int)layers_.size(); i++) run_layer(thread, i, batch);
    pool_.barrier();
    run_head(thread, batch, out);
}

void Model::embed(int thread, const Batch& batch) {
    const int hidden = spec_.hidden_size;
    auto [begin, end] = share(thread, num_tokens_);
    for (int t = begin; t < end; t++) {
        float* row = x_.data() + (size_t)t * hidden;
        dequantize_row(embedding_type_, embedding_ + batch.token_ids[t] * embedding_row_bytes_, hidden, row);
        if (spec_.embedding_scale != 1) kernels_.scale(row, spec_.embedding_scale, hidden);
    }
}

void Model::run_layer(int thread, int index, const Batch& batch) {
    const Layer& layer = layers_[index];
    const int hidden = spec_.hidden_size, ffn = spec_.ffn_size, q_size = spec_.num_heads * spec_.head_dim;
    const ptrdiff_t ld_qkv = q_size + 2 * spec_.num_kv_heads * spec_.head_dim;
    const auto [begin, end] = share(thread, num_tokens_);
    const QuantRows quant_hidden = quant_view(num_tokens_, hidden);
    const QuantRows quant_q = quant_view(num_tokens_, q_size);
    const QuantRows quant_ffn = quant_view(num_tokens_, ffn);
    float* block_out = spec_.post_norms ? block_out_.data() : x_.data();
    const bool accumulate = !spec_.post_norms;

    prepare_input(thread, layer.attn_norm);  // rows of x_ are this thread's own up to here
    linear(thread, layer.qkv, normed_.data(), hidden, quant_hidden, num_tokens_, qkv_.data(), ld_qkv, false);
    pool_.barrier();
    write_kv(thread, index, batch);
    if (thread == 0) next_item_.store(0, std::memory_order_relaxed);
    pool_.barrier();
    attend_items(thread, index, batch);
    pool_.barrier();
    if (num_split_items_ > 0) {
        merge_splits(thread);
        pool_.barrier();
    }
    if (layer.o.needs_quant) kernels_.quantize_rows(attention_.data(), q_size, begin, end, quant_q);
    pool_.barrier();
    linear(thread, layer.o, attention_.data(), q_size, quant_q, num_tokens_, block_out, hidden, accumulate);
    pool_.barrier();
    if (spec_.post_norms)
        for (int t = begin; t < end; t++) finish_block(layer.post_attn_norm, t);
    prepare_input(thread, layer.ffn_norm);
    linear(thread, layer.gate_up, normed_.data(), hidden, quant_hidden, num_tokens_, gate_up_.data(), 2 * ffn, false);
    pool_.barrier();
    for (int t = begin; t < end; t++) {
        const float* gate = gate_up_.data() + (size_t)t * 2 * ffn;
        kernels_.gated(spec_.activation, gate, gate + ffn, ffn, hidden_.data() + (size_t)t * ffn);
    }
    if (layer.down.needs_quant) kernels_.quantize_rows(hidden_.data(), ffn, begin, end, quant_ffn);
    pool_.barrier();
    linear(thread, layer.down, hidden_.data(), ffn, quant_ffn, num_tokens_, block_out, hidden, accumulate);
    pool_.barrier();
    if (spec_.post_norms)
        for (int t = begin; t < end; t++) finish_block(layer.post_ffn_norm, t);
}

// x += post_norm(block output), one row
void Model::finish_block(const float* post_norm, int row) {
    const int hidden = spec_.hidden_size;
    float* block = block_out_.data() + (size_t)row * hidden;
    kernels_.rms_norm(block, post_norm, spec_.norm_eps, hidden, block);
    kernels_.add(x_.data() + (size_t)row * hidden, block, hidden);
}

// Norm and quantization of this thread's rows of x_, then all meet.
void Model::prepare_input(int thread, const float* norm) {
    const int hidden = spec_.hidden_size;
    const auto [begin, end] = share(thread, num_tokens_);
    for (int t = begin; t < end; t++)
        kernels_.rms_norm(x_.data() + (size_t)t * hidden, norm, spec_.norm_eps, hidden, normed_.data() + (size_t)t * hidden);
    kernels_.quantize_rows(normed_.data(), hidden, begin, end,
                           quant_view(num_tokens_, hidden));
    pool_.barrier();
}

// Each thread computes a contiguous range of the columns of all parts, cut by packed bytes.
void Model::linear(int thread, const Linear& linear, const float* x, ptrdiff_t ldx, const QuantRows& quant, int num_rows,
                   float* out, ptrdiff_t ldout, bool accumulate) {
    size_t total = 0;
    for (const Matrix* part : linear.parts) total += part->packed.panel_bytes * part->packed.num_panels;
    const size_t from = total * thread / limits_.num_threads, to = total * (thread + 1) / limits_.num_threads;
    size_t at = 0;
    for (const Matrix* part : linear.parts) {
        const PackedMatrix& w = part->packed;
        // a panel belongs to the thread whose range holds its first byte
        auto first_panel_from = [&](size_t byte) {
            if (byte <= at) return 0;
            return (int)std::min<size_t>((byte - at + w.panel_bytes - 1) / w.panel_bytes, w.num_panels);
        };
        const int begin = first_panel_from(from), end = first_panel_from(to);
        if (begin < end) {
            if (part->is_float)
                kernels_.gemm_float(w, x, ldx, num_rows, begin, end, out, ldout, accumulate);
            else
                kernels_.gemm_quant(w, quant, begin, end, out, ldout, accumulate);
        }
        at += w.panel_bytes * w.num_panels;
        out += w.n;
    }
}

// Bias, head norms and RoPE on q and k, then K and V of this thread's rows go into the cache.
void Model::write_kv(int thread, int index, const Batch& batch) {
    const Layer& layer = layers_[index];
    const int dim = spec_.head_dim, heads = spec_.num_heads, kv_heads = spec_.num_kv_heads, size = limits_.block_size;
    const int rope_index = spec_.layers[index].rope, half = spec_.ropes[rope_index].dims / 2;
    const ptrdiff_t ld_qkv = (ptrdiff_t)(heads + 2 * kv_heads) * dim, head_size = (ptrdiff_t)size * dim;
    const auto [begin, end] = share(thread, num_tokens_);
    for (int t = begin; t < end; t++) {
        float *q = qkv_.data() + t * ld_qkv, *k = q + heads * dim, *v = k + kv_heads * dim;
        if (spec_.qkv_bias) {
            kernels_.add(q, layer.q_bias, heads * dim);
            kernels_.add(k, layer.k_bias, kv_heads * dim);
            kernels_.add(v, layer.v_bias, kv_heads * dim);
        }
        const int position = position_[t];
        const float* cosine = cosines_[rope_index].data() + (size_t)position * half;
        const float* sine = sines_[rope_index].data() + (size_t)position * half;
        for (int h = 0; h < heads + kv_heads; h++) {
            float* head = q + h * dim;
            if (spec_.qk_norm) kernels_.rms_norm(head, h < heads ? layer.q_norm : layer.k_norm, spec_.norm_eps, dim, head);
            kernels_.rope(head, cosine, sine, half);
        }
        const int block = batch.block_tables[(size_t)seq_of_[t] * batch.max_num_blocks + position / size];
        uint16_t* data = block_at(index, block);
        for (int h = 0; h < kv_heads; h++)
            kernels_.store_kv(k + h * dim, v + h * dim, dim, position % size, data + h * head_size,
                              data + (kv_heads + h) * head_size);
    }
}

// Final norm, logits and sampling of the asked rows, head_rows_ at a time.
void Model::run_head(int thread, const Batch& batch, const StepOutput& out) {
    const int hidden = spec_.hidden_size, vocab = spec_.vocab_size, num_rows = (int)batch.logit_rows.size();
    for (int first = 0; first < num_rows; first += head_rows_) {
        const int count = std::min(head_rows_, num_rows - first);
        const QuantRows quant = quant_view(count, hidden);
        const auto [begin, end] = share(thread, count);
        for (int r = begin; r < end; r++)
            kernels_.rms_norm(x_.data() + (size_t)batch.logit_rows[first + r] * hidden, final_norm_, spec_.norm_eps, hidden,
                              normed_.data() + (size_t)r * hidden);
        if (head_.needs_quant) kernels_.quantize_rows(normed_.data(), hidden, begin, end, quant);
        if (thread == 0) next_row_.store(0, std::memory_order_relaxed);
        pool_.barrier();
        linear(thread, head_, normed_.data(), hidden, quant, count, logits_.data(), vocab, false);
        pool_.barrier();
        for (int r; (r = next_row_.fetch_add(1, std::memory_order_relaxed)) < count;) {
            std::span<float> logits(logits_.data() + (size_t)r * vocab, vocab);
            if (spec_.logit_soft_cap != 0) kernels_.soft_cap_all(logits.data(), spec_.logit_soft_cap, vocab);
            const size_t row = first + r;
            if (!out.logits.empty()) std::memcpy(out.logits.data() + row * vocab, logits.data(), logits.size_bytes());
            const RowSample sample =
                sample_row(kernels_, logits, row_sampling(batch, (int)row), scratch_[thread]->sampler,
                           out.top_ids.subspan(row * out.num_top, out.num_top),
                           out.top_logprobs.subspan(row * out.num_top, out.num_top));
            out.token_ids[row] = sample.token_id;
            out.logprobs[row] = sample.logprob;
            out.ranks[row] = sample.rank;
        }
        pool_.barrier();
    }
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
