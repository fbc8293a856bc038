// Row operations: norms, activations, RoPE, KV writes, reductions over logits. Contracts: kernels.h.

static void rms_norm(const float* x, const float* weight, float eps, int n, float* out) {
    V16 a = set1(0), b = set1(0);  // two chains hide the FMA latency
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        V16 u = load(x + i), v = load(x + i + 16);
        a = fma(u, u, a);
        b = fma(v, v, b);
    }
    if (i < n) a = fma(load(x + i), load(x + i), a);
    V16 inverse = set1(1.0f / __builtin_sqrtf(sum(add(a, b)) / (float)n + eps));
    for (i = 0; i < n; i += 16) store(out + i, mul(mul(load(x + i), inverse), load(weight + i)));
}

static void add_rows(float* x, const float* y, int n) {
    for (int i = 0; i < n; i += 16) store(x + i, add(load(x + i), load(y + i)));
}

static void scale_row(float* x, float factor, int n) {
    for (int i = 0; i < n; i += 16) store(x + i, mul(load(x + i), set1(factor)));
}

static void gated(Activation act, const float* gate, const float* up, int n, float* out) {
    const V16 one = set1(1.0f);
    for (int i = 0; i < n; i += 16) {
        V16 g = load(gate + i), t = g;
        if (act == Activation::gelu_tanh)  // 0.5 (1 + tanh u) = 1 / (1 + e^-2u)
            t = mul(set1(1.5957691216f), fma(mul(mul(g, g), g), set1(0.044715f), g));
        V16 sigmoid = div(one, add(one, exp(sub(set1(0), t))));
        store(out + i, mul(mul(g, sigmoid), load(up + i)));
    }
}

static void rope(float* head, const float* cosine, const float* sine, int half) {
    int i = 0;
    for (; i + 16 <= half; i += 16) {
        V16 a = load(head + i), b = load(head + half + i), c = load(cosine + i), s = load(sine + i);
        store(head + i, sub(mul(a, c), mul(b, s)));
        store(head + half + i, add(mul(b, c), mul(a, s)));
    }
    for (; i < half; i++) {
        float a = head[i], b = head[half + i];
        float ac = a * cosine[i], bs = b * sine[i], bc = b * cosine[i], as = a * sine[i];
        head[i] = ac - bs;
        head[half + i] = bc + as;
    }
}

static void store_kv(const float* k, const float* v, int head_dim, int, int slot, uint8_t* k_head, uint8_t* v_head) {
    uint16_t halves[16];
    uint16_t* k_lane = (uint16_t*)k_head + (ptrdiff_t)(slot / 16) * head_dim * 16 + slot % 16 * 2;
    uint16_t* v_lane = (uint16_t*)v_head + (ptrdiff_t)(slot / 2) * head_dim * 2 + slot % 2;
    for (int d = 0; d < head_dim; d += 16, k_lane += 256, v_lane += 32) {
        store_bf16(halves, plain_nan(load(k + d)));
        for (int i = 0; i < 16; i += 2) __builtin_memcpy(k_lane + i * 16, halves + i, 4);
        store_bf16(halves, plain_nan(load(v + d)));
        for (int i = 0; i < 16; i++) v_lane[2 * i] = halves[i];
    }
}

static void soft_cap_all(float* x, float cap, int n) {
    int i = 0;
    for (; i + 16 <= n; i += 16) store(x + i, soft_cap(load(x + i), cap));
    for (; i < n; i++) {
        float lanes[16];
        store(lanes, soft_cap(set1(x[i]), cap));
        x[i] = lanes[0];
    }
}

static int argmax(const float* x, int n) {
    float best = -__builtin_inff();
    int i = 0;
    V16 m = set1(best);
    for (; i + 16 <= n; i += 16) m = max(m, load(x + i));
    best = largest(m);
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    for (i = 0; i + 16 <= n && !any_equal(load(x + i), best);) i += 16;
    for (; i < n; i++)
        if (x[i] == best) return i;
    return 0;  // all NaN
}

static double sum_exp(const float* x, float shift, float factor, int n, float* out) {
    double total = 0;
    float lanes[16];
    for (int i = 0; i < n;) {
        V16 part = set1(0);
        int end = i + 4096 < n ? i + 4096 : n;  // fp32 lanes for at most 256 terms, then one fp64 add
        for (; i + 16 <= end; i += 16) {
            V16 e = exp(mul(sub(load(x + i), set1(shift)), set1(factor)));
            if (out) store(out + i, e);
            part = add(part, e);
        }
        total += sum(part);
        for (; i < end; i++) {
            store(lanes, exp(set1((x[i] - shift) * factor)));
            if (out) out[i] = lanes[0];
            total += lanes[0];
        }
    }
    return total;
}
