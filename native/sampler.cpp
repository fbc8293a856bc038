#include "sampler.h"

#include <algorithm>
#include <cmath>

namespace inferd {

namespace {

// Candidates below this share of the largest probability are looked at only when the others do not suffice.
constexpr float kNegligible = 1e-6f;

uint64_t finalise(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

bool more_likely(const Candidate& a, const Candidate& b) { return a.p > b.p || (a.p == b.p && a.id < b.id); }

void sort_by_id(std::vector<Candidate>& kept) {
    std::sort(kept.begin(), kept.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

double mass(const std::vector<Candidate>& kept) {
    double total = 0;
    for (const Candidate& c : kept) total += c.p;
    return total;
}

void report_logprobs(const KernelTable& kernels, std::span<const float> logits, int num_logprobs, float& max_logit,
                     double& log_sum, std::span<int32_t> top_ids, std::span<float> top_logprobs) {
    const int n = (int)logits.size();
    max_logit = logits[kernels.argmax(logits.data(), n)];
    log_sum = std::log(kernels.sum_exp(logits.data(), max_logit, 1.0f, n, nullptr));
    const int count = std::min({num_logprobs, (int)top_ids.size(), n});
    if (count <= 0) return;
    // an insertion list of the best so far; ids ascend, so an equal later one never displaces an earlier one
    int filled = 0;
    for (int id = 0; id < n; id++) {
        float x = logits[id];
        if (filled == count && !(x > top_logprobs[count - 1])) continue;
        int at = filled < count ? filled++ : count - 1;
        for (; at > 0 && x > top_logprobs[at - 1]; at--) {
            top_logprobs[at] = top_logprobs[at - 1];
            top_ids[at] = top_ids[at - 1];
        }
        top_logprobs[at] = x;
        top_ids[at] = id;
    }
    for (int i = 0; i < filled; i++) top_logprobs[i] = (float)((double)top_logprobs[i] - max_logit - log_sum);
}

int rank_of(std::span<const float> logits, int token_id) {
    const float x = logits[token_id];
    int rank = 1;
    for (int id = 0; id < (int)logits.size(); id++) rank += logits[id] > x || (logits[id] == x && id < token_id);
    return rank;
}

// A mask of a grammar mostly allows or forbids 32 tokens in a row: whole words are passed over at once.
void forbid(std::span<float> logits, const uint32_t* allowed) {
    for (size_t first = 0; first < logits.size(); first += 32) {
        const uint32_t bits = allowed[first / 32];
        float* x = logits.data() + first;
        const int count = (int)std::min<size_t>(32, logits.size() - first);
        if (bits == ~0u) continue;
        if (bits == 0)
            std::fill(x, x + count, -INFINITY);
        else
            for (int i = 0; i < count; i++) x[i] = bits >> i & 1 ? x[i] : -INFINITY;
    }
}

void apply_constraints(std::span<float> logits, const RowSampling& how) {
    if (how.allowed) forbid(logits, how.allowed);
    for (size_t i = 0; i < how.bias_ids.size(); i++) logits[how.bias_ids[i]] += how.bias_values[i];
    for (size_t i = 0; i < how.penalty_ids.size(); i++) {
        float& x = logits[how.penalty_ids[i]];
        const float count = (float)how.penalty_counts[i];
        if (how.repetition_penalty != 1) x = x > 0 ? x / how.repetition_penalty : x * how.repetition_penalty;
        x -= how.frequency_penalty * count;
        x -= count > 0 ? how.presence_penalty : 0;
    }
}

void keep_top_k(std::vector<Candidate>& kept, int k) {
    if (k <= 0 || k >= (int)kept.size()) return;
    std::nth_element(kept.begin(), kept.begin() + k, kept.end(), more_likely);
    kept.resize(k);
}

void keep_top_p(std::vector<Candidate>& kept, double limit) {
    std::sort(kept.begin(), kept.end(), more_likely);
    double seen = 0;
    size_t count = 0;
    while (count < kept.size() && (count == 0 || seen < limit)) seen += kept[count++].p;
    kept.resize(count);
}

void keep_typical(std::vector<Candidate>& kept, double typical_p) {
    const double total = mass(kept);
    double entropy = 0;
    for (const Candidate& c : kept)
        if (c.p > 0) entropy -= c.p / total * std::log(c.p / total);
    auto surprise = [&](const Candidate& c) { return std::fabs(-std::log(c.p / total) - entropy); };
    std::sort(kept.begin(), kept.end(), [&](const Candidate& a, const Candidate& b) {
        double x = surprise(a), y = surprise(b);
        return x < y || (x == y && a.id < b.id);
    });
    double seen = 0;
    size_t count = 0;
    while (count < kept.size() && (count == 0 || seen < typical_p * total)) seen += kept[count++].p;
    kept.resize(count);
}

// Collects ids with probs >= floor; returns their mass.
double collect(std::span<const float> probs, float floor, std::vector<Candidate>& kept) {
    kept.clear();
    double total = 0;
    for (int id = 0; id < (int)probs.size(); id++)
        if (probs[id] >= floor) {
            kept.push_back({probs[id], id});
            total += probs[id];
        }
    return total;
}

int draw_among(const std::vector<Candidate>& kept, double u) {
    const double wanted = u * mass(kept);
    double seen = 0;
    for (const Candidate& c : kept) {
        seen += c.p;
        if (seen > wanted) return c.id;
    }
    return kept.back().id;
}

int draw_from_all(std::span<const float> probs, double total, double u) {
    double seen = 0;
    int last = 0;
    for (int id = 0; id < (int)probs.size(); id++) {
        if (probs[id] == 0) continue;
        seen += probs[id];
        last = id;
        if (seen > u * total) return id;
    }
    return last;
}

int draw(const KernelTable& kernels, std::span<const float> logits, const RowSampling& how, SamplerScratch& scratch) {
    const int n = (int)logits.size();
    const int best = kernels.argmax(logits.data(), n);
    const float top = logits[best];
    if (!std::isfinite(top)) return best;  // everything forbidden, or a broken model: there is no distribution to draw from
    std::span<float> probs(scratch.probs);
    // relative to the largest, which is exactly 1
    const double total = kernels.sum_exp(logits.data(), top, 1.0f / how.temperature, n, probs.data());
    const double u = uniform(how.seed, how.draw_index);
    const bool has_top_k = how.top_k > 0 && how.top_k < n, has_top_p = how.top_p < 1, has_typical = how.typical_p < 1;
    if (!has_top_k && !has_top_p && !has_typical && how.min_p <= 0) return draw_from_all(probs, total, u);

    std::vector<Candidate>& kept = scratch.candidates;
    float floor = std::max(how.min_p, kNegligible);
    double found = collect(probs, floor, kept);
    // what was left out matters unless min_p excludes it, top_k is already filled, or top_p alone is already reached
    const bool enough = how.min_p >= kNegligible || (has_top_k && (int)kept.size() >= how.top_k) ||
                        (!has_top_k && has_top_p && !has_typical && found >= how.top_p * total && how.min_p <= 0);
    if (!enough) found = collect(probs, std::max(how.min_p, 1e-45f), kept);
    keep_top_k(kept, has_top_k ? how.top_k : 0);
    if (has_top_p) {
        const bool whole = !has_top_k && how.min_p <= 0;
        keep_top_p(kept, (double)how.top_p * (whole ? total : mass(kept)));
    }
    if (has_typical) keep_typical(kept, how.typical_p);
    sort_by_id(kept);
    return draw_among(kept, u);
}

}  // namespace

double uniform(uint64_t seed, int64_t index) {
    uint64_t z = seed * 0x9E3779B97F4A7C15ull + ((uint64_t)index + 1) * 0xBF58476D1CE4E5B9ull + 0x94D049BB133111EBull;
    return (double)(finalise(finalise(z)) >> 11) * 0x1p-53;
}

RowSample sample_row(const KernelTable& kernels, std::span<float> logits, const RowSampling& how,
                     SamplerScratch& scratch, std::span<int32_t> top_ids, std::span<float> top_logprobs) {
    float max_logit = 0;
    double log_sum = 0;
    const bool wants_logprobs = how.num_logprobs >= 0;
    const bool changes = how.allowed || !how.bias_ids.empty() || !how.penalty_ids.empty();
    std::fill(top_ids.begin(), top_ids.end(), -1);
    std::fill(top_logprobs.begin(), top_logprobs.end(), 0.0f);
    if (wants_logprobs) report_logprobs(kernels, logits, how.num_logprobs, max_logit, log_sum, top_ids, top_logprobs);
    if (how.target >= 0) {
        if (!wants_logprobs) return {how.target, 0, 0};
        float logprob = (float)((double)logits[how.target] - max_logit - log_sum);
        return {how.target, logprob, rank_of(logits, how.target)};
    }
    // ranks are of the raw logits: keep them when something below changes them
    if (wants_logprobs && changes) std::copy(logits.begin(), logits.end(), scratch.raw.begin());
    if (changes) apply_constraints(logits, how);
    const int n = (int)logits.size();
    const bool greedy = how.temperature == 0 || how.top_k == 1 || how.top_p == 0;
    const int token = greedy ? kernels.argmax(logits.data(), n) : draw(kernels, logits, how, scratch);
    if (!wants_logprobs) return {token, 0, 0};
    std::span<const float> before = changes ? std::span<const float>(scratch.raw) : std::span<const float>(logits);
    return {token, (float)((double)before[token] - max_logit - log_sum), rank_of(before, token)};
}

}  // namespace inferd
