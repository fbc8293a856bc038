// Building a model: packing weights, resolving names, sizing scratch.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "model_scratch.h"

namespace inferd {

namespace {

bool is_float_type(int type) { return type == 0 || type == 1 || type == 30; }

size_t product(std::initializer_list<size_t> factors) {
    size_t total = 1;
    for (size_t factor : factors)
        if (__builtin_mul_overflow(total, factor, &total)) throw std::bad_alloc();
    return total;
}

}  // namespace

Memory::Memory(size_t bytes) : size_(bytes) {
    // no MAP_NORESERVE: more than the machine has is refused here, not by a signal when a step touches it
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    madvise(memory, bytes, MADV_HUGEPAGE);
    data_ = static_cast<uint8_t*>(memory);
}

Memory::~Memory() {
    if (data_) munmap(data_, size_);
}

void Model::QuantMemory::allocate(size_t rows, size_t widest) {
    values.allocate(rows * widest);
    floats.allocate(rows * widest / 16 * 3);
    ints.allocate(rows * widest / 16 * 3);
}

Model::ThreadScratch::ThreadScratch(const ModelSpec& spec, const Limits& limits) : sampler(spec.vocab_size) {
    queries.allocate((size_t)kTilesPerItem * kMaxAttendRows * spec.head_dim);
    part.allocate(slot_size(spec.head_dim));
    totals.allocate(kTilesPerItem * slot_size(spec.head_dim));
    rows.allocate((size_t)kOwnRows * spec.hidden_size);
    quant.allocate(kOwnRows, std::max(spec.hidden_size, spec.num_heads * spec.head_dim));
    gate_up.allocate((size_t)limits.max_num_batched_tokens * 2 * kGroup);
}

Model::Model(ModelSpec spec, Limits limits)
    : spec_((check_limits(spec, limits), std::move(spec))),
      limits_(limits),
      kernels_(kernels()),
      pool_(limits.num_threads),
      kv_kernels_(kernels_.kv[(int)limits_.kv_type]),
      kv_head_bytes_(kv_head_bytes(limits_.kv_type, limits_.block_size, spec_.head_dim)),
      block_bytes_(2 * spec_.num_kv_heads * kv_head_bytes_),
      kv_memory_(product({(size_t)block_bytes_, (size_t)limits_.num_blocks, spec_.layers.size()})) {
    for (const RopeSpec& rope : spec_.ropes) {
        const int half = rope.dims / 2;
        std::vector<float> cosine((size_t)limits_.max_model_len * half), sine(cosine.size());
        for (int p = 0; p < limits_.max_model_len; p++)
            for (int i = 0; i < half; i++) {
                const float angle = (float)p * rope.inv_freq[i];
                cosine[(size_t)p * half + i] = (float)std::cos((double)angle) * rope.magnitude;
                sine[(size_t)p * half + i] = (float)std::sin((double)angle) * rope.magnitude;
            }
        cosines_.push_back(std::move(cosine));
        sines_.push_back(std::move(sine));
    }
}

Model::~Model() = default;

void Model::set_embedding(int type, const uint8_t* rows, size_t row_bytes, size_t num_rows) {
    check_rows("embed", type, row_bytes, spec_.hidden_size);
    if (num_rows < (size_t)spec_.vocab_size)
        throw std::invalid_argument("embed has " + std::to_string(num_rows) + " rows, expected " + std::to_string(spec_.vocab_size));
    embedding_type_ = type;
    embedding_ = rows;
    embedding_row_bytes_ = row_bytes;
}

void Model::add_vector(const std::string& name, std::span<const float> values) {
    if (final_norm_) throw std::invalid_argument(name + ": the model is finished");
    vectors_[name].assign(values.begin(), values.end());
}

void Model::add_matrix(const std::string& name, int type, const uint8_t* rows, size_t row_bytes, int num_rows,
                       int num_cols) {
    if (num_cols % 32) throw std::invalid_argument(name + ": the native executor needs rows of a multiple of 32 values");
    check_rows(name, type, row_bytes, num_cols);
    if (final_norm_) throw std::invalid_argument(name + ": the model is finished");
    auto matrix = std::make_unique<Matrix>();
    matrix->is_float = is_float_type(type);
    const size_t bytes = packed_bytes(type, num_rows, num_cols);
    packed_memory_.emplace_back(bytes);
    uint8_t* data = packed_memory_.back().data();
    num_packed_bytes_ += bytes;
    matrix->packed = make_packed(type, num_rows, num_cols, data);
    pool_.each(matrix->packed.num_panels,
               [&](int, int panel) { pack(type, rows, row_bytes, num_rows, num_cols, panel, panel + 1, data); });
    matrices_[name] = std::move(matrix);
}

const float* Model::vector_of(const std::string& name, int size) const {
    auto found = vectors_.find(name);
    if (found == vectors_.end()) throw std::invalid_argument("missing tensor " + name);
    if ((int)found->second.size() != size)
        throw std::invalid_argument(name + " has " + std::to_string(found->second.size()) + " values, expected " +
                                    std::to_string(size));
    return found->second.data();
}

Model::Linear Model::linear_of(std::initializer_list<std::pair<std::string, int>> names, int num_cols) const {
    Linear linear;
    for (const auto& [name, num_rows] : names) {
        auto found = matrices_.find(name);
        if (found == matrices_.end()) throw std::invalid_argument("missing tensor " + name);
        const Matrix* matrix = found->second.get();
        if (matrix->packed.n != num_rows || matrix->packed.k != num_cols)
            throw std::invalid_argument(name + " is " + std::to_string(matrix->packed.n) + " x " +
                                        std::to_string(matrix->packed.k) + ", expected " + std::to_string(num_rows) +
                                        " x " + std::to_string(num_cols));
        linear.parts.push_back(matrix);
        linear.needs_quant |= !matrix->is_float;
        linear.num_panels += matrix->packed.num_panels;
        linear.num_bytes += matrix->packed.panel_bytes * matrix->packed.num_panels;
    }
    return linear;
}

void Model::finish() {
    if (final_norm_) throw std::invalid_argument("the model is finished");
    const int hidden = spec_.hidden_size, ffn = spec_.ffn_size, dim = spec_.head_dim;
    const int q_size = spec_.num_heads * dim, kv_size = spec_.num_kv_heads * dim;
    if (hidden % 32 || ffn % 32 || q_size % 32 || dim % 16)
        throw std::invalid_argument("the native executor needs hidden, ffn and query sizes that are multiples of 32 "
                                    "and a head size that is a multiple of 16");
    if (!embedding_) throw std::invalid_argument("missing tensor embed");
    for (size_t i = 0; i < spec_.layers.size(); i++) {
        const std::string at = "layers." + std::to_string(i) + ".";
        auto vector = [&](bool wanted, const char* name, int size) {
            return wanted ? vector_of(at + name, size) : nullptr;
        };
        Layer layer;
        layer.qkv = linear_of({{at + "q", q_size}, {at + "k", kv_size}, {at + "v", kv_size}}, hidden);
        layer.o = linear_of({{at + "o", hidden}}, q_size);
        layer.gate_up = linear_of({{at + "gate", ffn}, {at + "up", ffn}}, hidden);
        layer.down = linear_of({{at + "down", hidden}}, ffn);
        for (auto [linear, target] : {std::pair{&layer.qkv, LoraTarget::q}, {&layer.o, LoraTarget::o},
                                      {&layer.gate_up, LoraTarget::gate}, {&layer.down, LoraTarget::down}})
            linear->layer = (int)i, linear->first_target = (int)target;
        layer.attn_norm = vector(true, "attn_norm", hidden);
        layer.ffn_norm = vector(true, "ffn_norm", hidden);
        layer.q_bias = vector(spec_.qkv_bias, "q_bias", q_size);
        layer.k_bias = vector(spec_.qkv_bias, "k_bias", kv_size);
        layer.v_bias = vector(spec_.qkv_bias, "v_bias", kv_size);
        layer.q_norm = vector(spec_.qk_norm, "q_norm", dim);
        layer.k_norm = vector(spec_.qk_norm, "k_norm", dim);
        layer.post_attn_norm = vector(spec_.post_norms, "post_attn_norm", hidden);
        layer.post_ffn_norm = vector(spec_.post_norms, "post_ffn_norm", hidden);
        layers_.push_back(std::move(layer));
    }
    head_ = linear_of({{spec_.tied_head ? "embed" : "head", spec_.vocab_size}}, hidden);

    const size_t tokens = limits_.max_num_batched_tokens;
    position_.resize(tokens);
    seq_of_.resize(tokens);
    x_.allocate(tokens * hidden);
    if (spec_.post_norms) next_x_.allocate(tokens * hidden);
    block_out_.allocate(tokens * hidden);
    qkv_.allocate(tokens * (q_size + 2 * kv_size));
    attention_.allocate(tokens * q_size);
    hidden_.allocate(tokens * ffn);
    // at most 64 MiB of logits at a time; rows of the head may repeat, so they may be more than the tokens
    head_rows_ = std::clamp((16 << 20) / spec_.vocab_size, 8, 256);
    logits_.allocate((size_t)head_rows_ * spec_.vocab_size);
    const size_t rows = std::max<size_t>(tokens, head_rows_);
    normed_.allocate(rows * hidden);
    quant_.allocate(rows, std::max(hidden, q_size));
    ffn_quant_.allocate(tokens, ffn);
    const size_t max_splits = (limits_.max_model_len + kAttendSplit - 1) / kAttendSplit;
    slots_.allocate(max_num_slots(limits_.num_threads, max_splits) * slot_size(dim));
    items_.reserve(tokens * spec_.num_heads + max_num_slots(limits_.num_threads, max_splits));
    for (int t = 0; t < limits_.num_threads; t++) scratch_.push_back(std::make_unique<ThreadScratch>(spec_, limits_));
    final_norm_ = vector_of("final_norm", hidden);  // last: says that the model is finished
}

}  // namespace inferd
