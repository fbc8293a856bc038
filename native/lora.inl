// The two thin products of an adapter. Contracts: kernels.h.

template <int Rows>
static inline void shrink_tile(const float* x, const int* rows, const uint16_t* a, int k, float scale, float* u, ptrdiff_t ldu) {
    V16 total[Rows][kLoraRankStep];
    for (int row = 0; row < Rows; row++)
        for (int r = 0; r < kLoraRankStep; r++) total[row][r] = set1(0);
    for (int i = 0; i < k; i += 16) {
        V16 weight[kLoraRankStep];
        for (int r = 0; r < kLoraRankStep; r++) weight[r] = load_bf16(a + (ptrdiff_t)r * k + i);
        for (int row = 0; row < Rows; row++) {
            const V16 value = load(x + (ptrdiff_t)rows[row] * k + i);
            for (int r = 0; r < kLoraRankStep; r++) total[row][r] = fma(value, weight[r], total[row][r]);
        }
    }
    for (int row = 0; row < Rows; row++)
        for (int r = 0; r < kLoraRankStep; r++) u[rows[row] * ldu + r] = sum(total[row][r]) * scale;
}

static void lora_shrink(const float* x, const int* rows, int num_rows, const uint16_t* a, int k, int num_ranks, float scale,
                        float* u, ptrdiff_t ldu) {
    for (int r = 0; r < num_ranks; r += kLoraRankStep, a += (ptrdiff_t)kLoraRankStep * k) {
        int row = 0;
#if defined(__AVX512F__)  // 16 sums of two registers each do not fit the others
        for (; row + 4 <= num_rows; row += 4) shrink_tile<4>(x, rows + row, a, k, scale, u + r, ldu);
#endif
        for (; row + 2 <= num_rows; row += 2) shrink_tile<2>(x, rows + row, a, k, scale, u + r, ldu);
        if (row < num_rows) shrink_tile<1>(x, rows + row, a, k, scale, u + r, ldu);
    }
}

template <int Rows>
static inline void expand_tile(const float* u, ptrdiff_t ldu, const int* rows, const uint16_t* b, int rank, int n, float* out,
                               ptrdiff_t ldout) {
    for (int c = 0; c < n; c += 16, b += (ptrdiff_t)rank * 16) {
        V16 total[Rows];
        for (int row = 0; row < Rows; row++) total[row] = set1(0);
        for (int r = 0; r < rank; r++) {
            const V16 weight = load_bf16(b + (ptrdiff_t)r * 16);
            for (int row = 0; row < Rows; row++) total[row] = fma(set1(u[rows[row] * ldu + r]), weight, total[row]);
        }
        for (int row = 0; row < Rows; row++) {
            float* to = out + rows[row] * ldout + c;
            store(to, add(load(to), total[row]));
        }
    }
}

static void lora_expand(const float* u, ptrdiff_t ldu, const int* rows, int num_rows, const uint16_t* b, int rank, int n,
                        float* out, ptrdiff_t ldout) {
    int row = 0;
    for (; row + 4 <= num_rows; row += 4) expand_tile<4>(u, ldu, rows + row, b, rank, n, out, ldout);
    for (; row + 2 <= num_rows; row += 2) expand_tile<2>(u, ldu, rows + row, b, rank, n, out, ldout);
    if (row < num_rows) expand_tile<1>(u, ldu, rows + row, b, rank, n, out, ldout);
}
