// The tile of 6 to 12 rows for AVX-512 VNNI. Included by gemm_avx512.inl.
//
// Assembly, because the order of the instructions is the speed: the dot products fill the two multiplying ports, and all
// else must be spread among them in small pieces. The schedulers see fewer than a hundred instructions ahead, so a fold
// of 24 accumulators at the end of a block leaves the ports idle (0.55 of the port peak; compilers also spill). Even rows
// and odd rows therefore alternate, four quads of k each: while one half runs its dot products, what the other half has
// finished is brought to the next slice or folded.
//
// zmm0-23 accumulators, row r in 2r and 2r+1; 24-25 weights; 26-27 scales; 28-29 temporary; 30-31 minima, where 4-bit
// weights need 31 for the mask of their nibbles and take the second minima from memory.

#define INFERD_IF_ROW(R) ".if " #R " < %c[mr]\n"
#define INFERD_END ".endif\n"
#define INFERD_Z(N) "%%zmm" #N

// one row, one quad of k
#define INFERD_DOT(Q, R, LO, HI)                                          \
    INFERD_IF_ROW(R)                                                      \
    "vpbroadcastd (" #Q " * %c[mr] + " #R ") * 4(%[a]), %%zmm28\n"        \
    "vpdpbusd %%zmm28, %%zmm24, " INFERD_Z(LO) "\n"                       \
    "vpdpbusd %%zmm28, %%zmm25, " INFERD_Z(HI) "\n" INFERD_END

#define INFERD_WEIGHTS(Q)                                                                                            \
    ".if !(%c[kind] & 1)\n"                                                                                            \
    "vmovdqa64 %c[quants] + " #Q " * 128(%[w]), %%zmm24\nvmovdqa64 %c[quants] + " #Q " * 128 + 64(%[w]), %%zmm25\n"    \
    ".elseif " #Q " & 1\n"                                                                                           \
    "vpsrlw $4, %c[quants] + " #Q " / 2 * 128(%[w]), %%zmm24\n"                                                      \
    "vpsrlw $4, %c[quants] + " #Q " / 2 * 128 + 64(%[w]), %%zmm25\n"                                                 \
    "vpandd %%zmm31, %%zmm24, %%zmm24\nvpandd %%zmm31, %%zmm25, %%zmm25\n"                                           \
    ".else\n"                                                                                                        \
    "vpandd %c[quants] + " #Q " / 2 * 128(%[w]), %%zmm31, %%zmm24\n"                                                 \
    "vpandd %c[quants] + " #Q " / 2 * 128 + 64(%[w]), %%zmm31, %%zmm25\n.endif\n"

// lines from `next` on, as many as a block of packed weights has, a quarter of a block's in each step
#define INFERD_AHEAD_LINE(STEP, I) \
    ".if " #STEP " * ((%c[block] + 255) / 256) + " #I " < (%c[block] + 63) / 64 && " #I " < (%c[block] + 255) / 256\n" \
    "prefetcht0 (" #STEP " * ((%c[block] + 255) / 256) + " #I ") * 64(%[next])\n.endif\n"
#define INFERD_AHEAD(STEP) \
    INFERD_AHEAD_LINE(STEP, 0) INFERD_AHEAD_LINE(STEP, 1) INFERD_AHEAD_LINE(STEP, 2) INFERD_AHEAD_LINE(STEP, 3) INFERD_AHEAD_LINE(STEP, 4)

#define INFERD_EVEN_QUAD(Q, X, Y)                                                                        \
    INFERD_WEIGHTS(Q) INFERD_DOT(Q, 0, 0, 1) INFERD_DOT(Q, 2, 4, 5) INFERD_DOT(Q, 4, 8, 9) X             \
    INFERD_DOT(Q, 6, 12, 13) INFERD_DOT(Q, 8, 16, 17) INFERD_DOT(Q, 10, 20, 21) Y
#define INFERD_ODD_QUAD(Q, X, Y)                                                                         \
    INFERD_WEIGHTS(Q) INFERD_DOT(Q, 1, 2, 3) INFERD_DOT(Q, 3, 6, 7) INFERD_DOT(Q, 5, 10, 11) X           \
    INFERD_DOT(Q, 7, 14, 15) INFERD_DOT(Q, 9, 18, 19) INFERD_DOT(Q, 11, 22, 23) Y

// four quads of one half's rows, with POST for the rows of the other
#define INFERD_EVEN_STEP(Q0, Q1, Q2, Q3, POST)                                                                       \
    INFERD_EVEN_QUAD(Q0, POST(1, 2, 3), POST(3, 6, 7)) INFERD_EVEN_QUAD(Q1, POST(5, 10, 11), POST(7, 14, 15))        \
    INFERD_EVEN_QUAD(Q2, POST(9, 18, 19), ) INFERD_EVEN_QUAD(Q3, POST(11, 22, 23), )
#define INFERD_ODD_STEP(Q0, Q1, Q2, Q3, POST)                                                                        \
    INFERD_ODD_QUAD(Q0, POST(0, 0, 1), POST(2, 4, 5)) INFERD_ODD_QUAD(Q1, POST(4, 8, 9), POST(6, 12, 13))            \
    INFERD_ODD_QUAD(Q2, POST(8, 16, 17), ) INFERD_ODD_QUAD(Q3, POST(10, 20, 21), )
#define INFERD_EVEN_ROWS(OP) OP(0, 0, 1) OP(2, 4, 5) OP(4, 8, 9) OP(6, 12, 13) OP(8, 16, 17) OP(10, 20, 21)
#define INFERD_ODD_ROWS(OP) OP(1, 2, 3) OP(3, 6, 7) OP(5, 10, 11) OP(7, 14, 15) OP(9, 18, 19) OP(11, 22, 23)
// zero part of two rows
#define INFERD_CLEAR(R, LO, HI)                                                                                      \
    "vpxord %%zmm29, %%zmm29, %%zmm29\n"                                                                             \
    INFERD_IF_ROW(R) "vmovaps %%zmm29, " #R " * 128(%[p])\nvmovaps %%zmm29, " #R " * 128 + 64(%[p])\n" INFERD_END    \
    "vmovaps %%zmm29, (" #R " - 1) * 128(%[p])\nvmovaps %%zmm29, (" #R " - 1) * 128 + 64(%[p])\n"

// numbers of a row, see write_numbers()
#define INFERD_NUMBER(SLOT, R) "((" SLOT ") * %c[mr] + " #R ") * 4(%[o])"
#define INFERD_NUMBER_AT(SLOT, R, BACK) "((" SLOT ") * %c[mr] + " #R ") * 4 - " BACK "(%[o])"

#define INFERD_BEGIN_SLICE(SLOT, R, LO, HI) \
    INFERD_IF_ROW(R) "vpbroadcastd " INFERD_NUMBER(SLOT, R) ", " INFERD_Z(LO) "\nvmovdqa64 " INFERD_Z(LO) ", " INFERD_Z(HI) "\n" INFERD_END
#define INFERD_BEGIN_0(R, LO, HI) INFERD_BEGIN_SLICE("0", R, LO, HI)
#define INFERD_BEGIN_1(R, LO, HI) ".if !(%c[kind] & 8)\n" INFERD_BEGIN_SLICE("1", R, LO, HI) ".endif\n"

// zmm26-27, 30-31 = scales and minima of sub-block SUB of the block BACK bytes back
#define INFERD_SCALES(SUB, BACK)                                                                                     \
    "vmovaps " #SUB " * 128 - " BACK "(%[s]), %%zmm26\nvmovaps " #SUB " * 128 + 64 - " BACK "(%[s]), %%zmm27\n"      \
    ".if %c[kind] & 16\nvmovaps %c[scales] / 2 + " #SUB " * 128 - " BACK "(%[s]), %%zmm30\n.endif\n"                              \
    ".if (%c[kind] & 16) && !(%c[kind] & 1)\nvmovaps %c[scales] / 2 + " #SUB " * 128 + 64 - " BACK "(%[s]), %%zmm31\n.endif\n"

#define INFERD_SCALED(X)                                                                                             \
    ".if %c[kind] & 4\nvsubps %%zmm29, " INFERD_Z(X) ", " INFERD_Z(X) "\n"                                              \
    ".else\nvcvtdq2ps " INFERD_Z(X) ", " INFERD_Z(X) "\nvscalefps %%zmm29, " INFERD_Z(X) ", " INFERD_Z(X) "\n.endif\n"

// where a folded row goes: into part, or at the end of an activation group through part into acc
#define INFERD_TO_PART(R, LO, HI) \
    "vmovaps " INFERD_Z(LO) ", " #R " * 128(%[p])\nvmovaps " INFERD_Z(HI) ", " #R " * 128 + 64(%[p])\n"
#define INFERD_TO_ACC(R, LO, HI)                                                                                     \
    "vbroadcastss " #R " * 4(%[c]), %%zmm29\n"                                                                       \
    "vfmadd213ps " #R " * 128(%[acc]), %%zmm29, " INFERD_Z(LO) "\n"                                                  \
    "vfmadd213ps " #R " * 128 + 64(%[acc]), %%zmm29, " INFERD_Z(HI) "\n"                                             \
    "vpxord %%zmm29, %%zmm29, %%zmm29\n"                                                                             \
    "vmovups " INFERD_Z(LO) ", " #R " * 128(%[acc])\nvmovups " INFERD_Z(HI) ", " #R " * 128 + 64(%[acc])\n"          \
    "vmovaps %%zmm29, " #R " * 128(%[p])\nvmovaps %%zmm29, " #R " * 128 + 64(%[p])\n"

// part + dot * scale + minimum * sum of sub-block SUB, with the numbers UNIT and SUM; numbers and scales are those of the
// block BACK and BACK_SCALES bytes back
#define INFERD_FOLD(UNIT, SUM, SUB, BACK, BACK_SCALES, R, LO, HI, TO)                                               \
    INFERD_IF_ROW(R)                                                                                                 \
    "vbroadcastss " INFERD_NUMBER_AT(UNIT, R, BACK) ", %%zmm29\n"                                                    \
    INFERD_SCALED(LO) INFERD_SCALED(HI)                                                                              \
    "vfmadd213ps " #R " * 128(%[p]), %%zmm26, " INFERD_Z(LO) "\n"                                                    \
    "vfmadd213ps " #R " * 128 + 64(%[p]), %%zmm27, " INFERD_Z(HI) "\n"                                               \
    ".if %c[kind] & 16\n"                                                                                                  \
    "vbroadcastss " INFERD_NUMBER_AT(SUM, R, BACK) ", %%zmm29\n"                                      \
    "vfmadd231ps %%zmm29, %%zmm30, " INFERD_Z(LO) "\n"                                                               \
    ".if !(%c[kind] & 1)\nvfmadd231ps %%zmm29, %%zmm31, " INFERD_Z(HI) "\n"                                            \
    ".else\nvfmadd231ps %c[scales] / 2 + " #SUB " * 128 + 64 - " BACK_SCALES "(%[s]), %%zmm29, " INFERD_Z(HI) "\n.endif\n"  \
    ".endif\n" TO(R, LO, HI) INFERD_END
#define INFERD_FOLD_0(R, LO, HI) INFERD_FOLD("%c[kind] & 2", "2", 0, "0", "0", R, LO, HI, INFERD_TO_PART)
#define INFERD_FOLD_1(BACK, BACK_SCALES, R, LO, HI, TO)                            \
    ".if %c[kind] & 8\n" INFERD_FOLD("2 + (%c[kind] & 2) / 2", "3", 0, BACK, BACK_SCALES, R, LO, HI, TO)  \
    ".else\n" INFERD_FOLD("1 + (%c[kind] & 2)", "3", 1, BACK, BACK_SCALES, R, LO, HI, TO) ".endif\n"
#define INFERD_FOLD_PART(R, LO, HI) INFERD_FOLD_1("0", "0", R, LO, HI, INFERD_TO_PART)
#define INFERD_FOLD_ACC(R, LO, HI) INFERD_FOLD_1("0", "0", R, LO, HI, INFERD_TO_ACC)
#define INFERD_FOLD_PART_BACK(R, LO, HI) INFERD_FOLD_1("%c[mr] * 16", "%c[scales]", R, LO, HI, INFERD_TO_PART)
#define INFERD_FOLD_ACC_BACK(R, LO, HI) INFERD_FOLD_1("%c[mr] * 16", "%c[scales]", R, LO, HI, INFERD_TO_ACC)

// after slice 0: to the scale of slice 1, or the fold of sub-block 0
#define INFERD_AFTER_0(R, LO, HI)                                                                                    \
    ".if %c[kind] & 8\n" INFERD_IF_ROW(R)                                                                          \
    "vpbroadcastd " INFERD_NUMBER("1", R) ", %%zmm29\n"                                                               \
    "vpslld $6, " INFERD_Z(LO) ", " INFERD_Z(LO) "\nvpslld $6, " INFERD_Z(HI) ", " INFERD_Z(HI) "\n"     \
    "vpsravd %%zmm29, " INFERD_Z(LO) ", " INFERD_Z(LO) "\nvpsravd %%zmm29, " INFERD_Z(HI) ", " INFERD_Z(HI) "\n"     \
    "vpbroadcastd " INFERD_NUMBER("2", R) ", %%zmm29\n"                                                               \
    "vpaddd %%zmm29, " INFERD_Z(LO) ", " INFERD_Z(LO) "\nvpaddd %%zmm29, " INFERD_Z(HI) ", " INFERD_Z(HI) "\n"       \
    INFERD_END ".else\n" INFERD_FOLD_0(R, LO, HI) ".endif\n"
#define INFERD_SCALES_0 ".if !(%c[kind] & 8)\n" INFERD_SCALES(0, "0") ".endif\n"
#define INFERD_SCALES_LAST ".if %c[kind] & 8\n" INFERD_SCALES(0, "0") ".else\n" INFERD_SCALES(1, "0") ".endif\n"
#define INFERD_SCALES_BACK \
    ".if %c[kind] & 8\n" INFERD_SCALES(0, "%c[scales]") ".else\n" INFERD_SCALES(1, "%c[scales]") ".endif\n"

// the block whose first step of even rows has run, up to where its odd rows remain to be folded
#define INFERD_BLOCK(FOLD)                                        \
    INFERD_AHEAD(0) INFERD_ODD_ROWS(INFERD_BEGIN_0) INFERD_SCALES_0 \
    INFERD_ODD_STEP(0, 1, 2, 3, INFERD_AFTER_0)                   \
    INFERD_AHEAD(1) INFERD_AHEAD(2) INFERD_EVEN_ROWS(INFERD_BEGIN_1) \
    INFERD_EVEN_STEP(4, 5, 6, 7, INFERD_AFTER_0)                  \
    INFERD_AHEAD(3) INFERD_ODD_ROWS(INFERD_BEGIN_1) INFERD_SCALES_LAST \
    INFERD_ODD_STEP(4, 5, 6, 7, FOLD)                             \
    "add $%c[block], %[w]\nadd $%c[scales], %[s]\nadd $%c[block], %[next]\n" \
    "add $%c[mr] * 32, %[a]\nadd $%c[mr] * 16, %[o]\n"

// acc[r] += product of the tile's rows with num_blocks K-blocks, whose first is at w; scales as write_scales() left them,
// numbers as write_numbers(). Meanwhile as much memory from `next` on is fetched.
template <class P, int MR>
static void tile_of_rows(const uint8_t* w, const float* scales, TileRows rows, const int32_t* numbers, ptrdiff_t num_blocks,
                         float (*acc)[32], const uint8_t* next) {
    static_assert(kGroup / 32 == 4 && kMaxLeft == 6, "the assembly has them as numbers");
    static const uint32_t kNibbles = 0x0F0F0F0F;
    // what the assembly tests: 1 nibbles, 2 a zero, 4 magic, 8 two slices per sub-block, 16 minima, 32 headers
    constexpr int kKind = (P::bits == 4) + (P::zero ? 2 : 0) + (P::magic ? 4 : 0) + (P::sub == 32 ? 8 : 0) +
                          (P::has_min ? 16 : 0) + (P::header_bytes ? 32 : 0);
    alignas(64) float part[12][32];
    ptrdiff_t group = 0, header = 0;  // header: bytes from this group of K-blocks to the next besides the blocks
    __asm__ volatile(
        ".if %c[kind] & 1\nvpbroadcastd %[nibbles], %%zmm31\n.endif\n"
        INFERD_EVEN_ROWS(INFERD_BEGIN_0)
        INFERD_EVEN_STEP(0, 1, 2, 3, INFERD_CLEAR)
        "0:\n"
        "mov $4, %[g]\ncmp %[n], %[g]\ncmovg %[n], %[g]\nsub %[g], %[n]\n"
        "1:\n"
        "sub $1, %[g]\njz 2f\n"
        INFERD_BLOCK(INFERD_FOLD_PART)
        INFERD_EVEN_ROWS(INFERD_BEGIN_0) INFERD_SCALES_BACK
        INFERD_EVEN_STEP(0, 1, 2, 3, INFERD_FOLD_PART_BACK)
        "jmp 1b\n"
        "2:\n"
        INFERD_BLOCK(INFERD_FOLD_ACC)
        INFERD_SCALES_BACK
        "test %[n], %[n]\njz 3f\n"
        ".if %c[kind] & 32\nadd %[h], %[w]\nxor $64 + (%c[kind] & 16) * 4, %[h]\n.endif\n"  // a header at every second group
        INFERD_EVEN_ROWS(INFERD_BEGIN_0)
        INFERD_EVEN_STEP(0, 1, 2, 3, INFERD_FOLD_ACC_BACK)
        "add $%c[mr] * 4, %[c]\n"
        "jmp 0b\n"
        "3:\n"
        INFERD_ODD_ROWS(INFERD_FOLD_ACC_BACK)
        : [w] "+r"(w), [s] "+r"(scales), [a] "+r"(rows.q), [o] "+r"(numbers),
          [c] "+r"(rows.scale), [n] "+r"(num_blocks), [g] "+r"(group), [h] "+r"(header), [next] "+r"(next)
        : [p] "r"(part), [acc] "r"(acc), [nibbles] "m"(kNibbles), [mr] "i"(MR), [kind] "i"(kKind), [block] "i"(P::block_bytes),
          [quants] "i"(P::scale_bytes), [scales] "i"(4 * kScaleFloats<P>)
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23",
          "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
}
