// One row of logits becomes one token. The order of operations is SamplingParams's; executors/reference_sampler.py is
// its definition.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels.h"

namespace inferd {

struct RowSampling {
    float temperature, top_p, min_p, typical_p;
    int top_k;
    uint64_t seed;
    int64_t draw_index;
    float repetition_penalty, frequency_penalty, presence_penalty;
    int target;        // -1 = draw
    int num_logprobs;  // -1 = none
    std::span<const int32_t> penalty_ids, penalty_counts;
    std::span<const int32_t> bias_ids;
    std::span<const float> bias_values;
    const uint32_t* allowed;  // bit per token, or null
};

struct RowSample {
    int32_t token_id;
    float logprob;
    int32_t rank;
};

struct Candidate {
    float p;
    int32_t id;
};

// Scratch of one thread.
struct SamplerScratch {
    explicit SamplerScratch(int vocab) : probs(vocab), raw(vocab) { candidates.reserve(vocab); }
    std::vector<float> probs, raw;
    std::vector<Candidate> candidates;
};

// logits: (vocab,), overwritten. top_ids, top_logprobs: (num_top,), filled with -1 and 0 beyond the row's own count.
RowSample sample_row(const KernelTable& kernels, std::span<float> logits, const RowSampling& how,
                     SamplerScratch& scratch, std::span<int32_t> top_ids, std::span<float> top_logprobs);

// Uniform in [0, 1): SplitMix64's finaliser, twice, over (seed, index).
double uniform(uint64_t seed, int64_t index);

}  // namespace inferd
