// Row operations of encoders. Contracts: kernels.h (EncoderKernels).

static void layer_norm(float* x, const float* weight, const float* bias, float eps, int n) {
    V16 total = set1(0), squares = set1(0);
    for (int i = 0; i < n; i += 16) total = add(total, load(x + i));
    const V16 mean = set1(sum(total) / (float)n);
    for (int i = 0; i < n; i += 16) {
        const V16 d = sub(load(x + i), mean);
        squares = fma(d, d, squares);
    }
    const V16 inverse = set1(1.0f / __builtin_sqrtf(sum(squares) / (float)n + eps));
    for (int i = 0; i < n; i += 16)
        store(x + i, fma(mul(sub(load(x + i), mean), inverse), load(weight + i), load(bias + i)));
}

// x Phi(x) = max(x, 0) - |x| / 2 * erfc(|x| / sqrt 2); erfc by Abramowitz and Stegun 7.1.26, error 1.5e-7
static inline V16 gelu(V16 x) {
    const V16 size = abs(x), z = mul(size, set1(0.70710678f));
    const V16 t = div(set1(1.0f), fma(z, set1(0.3275911f), set1(1.0f)));
    V16 p = fma(t, set1(1.061405429f), set1(-1.453152027f));
    p = fma(p, t, set1(1.421413741f));
    p = fma(p, t, set1(-0.284496736f));
    p = fma(p, t, set1(0.254829592f));
    const V16 erfc = mul(mul(p, t), exp(mul(sub(set1(0), z), z)));
    return sub(max(x, set1(0)), mul(mul(size, set1(0.5f)), erfc));
}

// 0.5 (1 + tanh u) = 1 / (1 + e^-2u)
static inline V16 gelu_by_tanh(V16 x) {
    const V16 u = mul(set1(1.5957691216f), fma(mul(mul(x, x), x), set1(0.044715f), x));
    return div(x, add(set1(1.0f), exp(sub(set1(0), u))));
}

static void add_and_activate(RowActivation act, float* x, const float* bias, int n) {
    for (int i = 0; i < n; i += 16) {
        const V16 v = add(load(x + i), load(bias + i));
        switch (act) {
            case RowActivation::none: store(x + i, v); break;
            case RowActivation::gelu: store(x + i, gelu(v)); break;
            case RowActivation::gelu_tanh: store(x + i, gelu_by_tanh(v)); break;
            case RowActivation::relu: store(x + i, max(v, set1(0))); break;
        }
    }
}

static void round_to_bf16(const float* x, int n, uint16_t* out) {
    for (int i = 0; i < n; i += 16) store_bf16(out + i, load(x + i));
}

// out[r][32 columns] = sum over k of x[r][k] * w[k][32 columns]
template <class P, int R>
static inline void pair_tile(const uint16_t* w, int k, const uint16_t* x, ptrdiff_t ldx, float* out, ptrdiff_t ldout) {
    for (int half = 0; half < 2; half += P::kChunks) {
        V16 acc[R][P::kChunks];
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
#pragma GCC unroll 2
            for (int h = 0; h < P::kChunks; h++) acc[r][h] = set1(0);
        for (int i = 0; i < k; i += 2) {
            P weight[P::kChunks];
#pragma GCC unroll 2
            for (int h = 0; h < P::kChunks; h++) weight[h] = P::load(w + (ptrdiff_t)i * 32 + 32 * (half + h));
#pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                const P value = P::broadcast(pair_at(x + r * ldx + i));
#pragma GCC unroll 2
                for (int h = 0; h < P::kChunks; h++) P::dot(acc[r][h], value, weight[h]);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
#pragma GCC unroll 2
            for (int h = 0; h < P::kChunks; h++) store(out + r * ldout + 16 * (half + h), acc[r][h]);
    }
}

template <class P, int R>
static void pair_rows(const uint16_t* w, int k, const uint16_t* x, ptrdiff_t ldx, int num_rows, float* out, ptrdiff_t ldout) {
    if (num_rows == R)
        pair_tile<P, R>(w, k, x, ldx, out, ldout);
    else if constexpr (R > 1)
        pair_rows<P, R - 1>(w, k, x, ldx, num_rows, out, ldout);
}

template <class P>
static void gemm_pairs(const PackedMatrix& w, const uint16_t* x, ptrdiff_t ldx, int num_rows, int panel_begin,
                       int panel_end, float* out, ptrdiff_t ldout) {
    for (int panel = panel_begin; panel < panel_end; panel++) {
        const uint16_t* data = (const uint16_t*)(w.data + panel * w.panel_bytes);
        float* columns = out + panel * kPanelColumns;
        for (int m = 0; m < num_rows; m += P::kRows) {
            const int count = num_rows - m < P::kRows ? num_rows - m : P::kRows;
            pair_rows<P, P::kRows>(data, w.k, x + m * ldx, ldx, count, columns + m * ldout, ldout);
        }
    }
}
