// The tensor core instructions under test: mma.sync (sm_80 on) and wgmma (sm_90a), bf16
// operands and f32 accumulators, one wrapper a shape.
#pragma once

#include <cstdint>

namespace orrery::selftest {

/// d = a b + d of one warp, 16 x 8 x 16. Lane l holds of A rows l/4 and l/4 + 8, of B
/// column l/4, at k = 2 (l % 4) and 8 further on; of D rows as of A, columns 2 (l % 4).
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// The half step, 16 x 8 x 8: a[0] and a[1] hold rows l/4 and l/4 + 8.
__device__ inline void mma_m16n8k8(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(b));
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}
/// Makes a thread's ordinary stores to shared memory visible to wgmma and TMA.
__device__ inline void async_proxy_fence() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// wgmma m64nNk16 of one warpgroup, N = 8, 16, ..., 256. Of D, d[4 j + 2 h + i] of
/// thread t is row 16 (t / 32) + (t % 32) / 4 + 8 h, column 8 j + 2 (t % 4) + i. ss
/// takes A from shared memory, rs from registers (as mma's, warp by warp). kTransA and
/// kTransB: 1 where the operand is MN-major. accumulate = 0: from zero instead of d.
template <int N>
struct Wgmma;

// The registers of d, of which a shape names the first N/2; those beyond stay unused.
#define ORRERY_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ORRERY_D16(i) ORRERY_D4(i), ORRERY_D4(i + 4), ORRERY_D4(i + 8), ORRERY_D4(i + 12)
#define ORRERY_D64(i) ORRERY_D16(i), ORRERY_D16(i + 16), ORRERY_D16(i + 32), ORRERY_D16(i + 48)
#define ORRERY_D128 ORRERY_D64(0), ORRERY_D64(64)

#define ORRERY_REGS_8 "%0,%1,%2,%3"
#define ORRERY_REGS_16 ORRERY_REGS_8 ",%4,%5,%6,%7"
#define ORRERY_REGS_24 ORRERY_REGS_16 ",%8,%9,%10,%11"
#define ORRERY_REGS_32 ORRERY_REGS_24 ",%12,%13,%14,%15"
#define ORRERY_REGS_40 ORRERY_REGS_32 ",%16,%17,%18,%19"
#define ORRERY_REGS_48 ORRERY_REGS_40 ",%20,%21,%22,%23"
#define ORRERY_REGS_56 ORRERY_REGS_48 ",%24,%25,%26,%27"
#define ORRERY_REGS_64 ORRERY_REGS_56 ",%28,%29,%30,%31"
#define ORRERY_REGS_72 ORRERY_REGS_64 ",%32,%33,%34,%35"
#define ORRERY_REGS_80 ORRERY_REGS_72 ",%36,%37,%38,%39"
#define ORRERY_REGS_88 ORRERY_REGS_80 ",%40,%41,%42,%43"
#define ORRERY_REGS_96 ORRERY_REGS_88 ",%44,%45,%46,%47"
#define ORRERY_REGS_104 ORRERY_REGS_96 ",%48,%49,%50,%51"
#define ORRERY_REGS_112 ORRERY_REGS_104 ",%52,%53,%54,%55"
#define ORRERY_REGS_120 ORRERY_REGS_112 ",%56,%57,%58,%59"
#define ORRERY_REGS_128 ORRERY_REGS_120 ",%60,%61,%62,%63"
#define ORRERY_REGS_136 ORRERY_REGS_128 ",%64,%65,%66,%67"
#define ORRERY_REGS_144 ORRERY_REGS_136 ",%68,%69,%70,%71"
#define ORRERY_REGS_152 ORRERY_REGS_144 ",%72,%73,%74,%75"
#define ORRERY_REGS_160 ORRERY_REGS_152 ",%76,%77,%78,%79"
#define ORRERY_REGS_168 ORRERY_REGS_160 ",%80,%81,%82,%83"
#define ORRERY_REGS_176 ORRERY_REGS_168 ",%84,%85,%86,%87"
#define ORRERY_REGS_184 ORRERY_REGS_176 ",%88,%89,%90,%91"
#define ORRERY_REGS_192 ORRERY_REGS_184 ",%92,%93,%94,%95"
#define ORRERY_REGS_200 ORRERY_REGS_192 ",%96,%97,%98,%99"
#define ORRERY_REGS_208 ORRERY_REGS_200 ",%100,%101,%102,%103"
#define ORRERY_REGS_216 ORRERY_REGS_208 ",%104,%105,%106,%107"
#define ORRERY_REGS_224 ORRERY_REGS_216 ",%108,%109,%110,%111"
#define ORRERY_REGS_232 ORRERY_REGS_224 ",%112,%113,%114,%115"
#define ORRERY_REGS_240 ORRERY_REGS_232 ",%116,%117,%118,%119"
#define ORRERY_REGS_248 ORRERY_REGS_240 ",%120,%121,%122,%123"
#define ORRERY_REGS_256 ORRERY_REGS_248 ",%124,%125,%126,%127"

#define ORRERY_WGMMA(N)                                                                         \
  template <>                                                                                   \
  struct Wgmma<N> {                                                                             \
    template <int kTransA, int kTransB>                                                         \
    static __device__ void ss(float (&d)[128], uint64_t a, uint64_t b, int accumulate) {        \
      asm volatile(                                                                             \
          "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                         \
          "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" ORRERY_REGS_##N          \
          "}, %128, %129, p, 1, 1, %131, %132;\n}\n"                                            \
          : ORRERY_D128                                                                         \
          : "l"(a), "l"(b), "r"(accumulate), "n"(kTransA), "n"(kTransB));                       \
    }                                                                                           \
    template <int kTransB>                                                                      \
    static __device__ void rs(float (&d)[128], const uint32_t (&a)[4], uint64_t b,              \
                              int accumulate) {                                                 \
      asm volatile(                                                                             \
          "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n"                                         \
          "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" ORRERY_REGS_##N          \
          "}, {%128,%129,%130,%131}, %132, p, 1, 1, %134;\n}\n"                                 \
          : ORRERY_D128                                                                         \
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransB)); \
    }                                                                                           \
  };

ORRERY_WGMMA(8)
ORRERY_WGMMA(16)
ORRERY_WGMMA(24)
ORRERY_WGMMA(32)
ORRERY_WGMMA(40)
ORRERY_WGMMA(48)
ORRERY_WGMMA(56)
ORRERY_WGMMA(64)
ORRERY_WGMMA(72)
ORRERY_WGMMA(80)
ORRERY_WGMMA(88)
ORRERY_WGMMA(96)
ORRERY_WGMMA(104)
ORRERY_WGMMA(112)
ORRERY_WGMMA(120)
ORRERY_WGMMA(128)
ORRERY_WGMMA(136)
ORRERY_WGMMA(144)
ORRERY_WGMMA(152)
ORRERY_WGMMA(160)
ORRERY_WGMMA(168)
ORRERY_WGMMA(176)
ORRERY_WGMMA(184)
ORRERY_WGMMA(192)
ORRERY_WGMMA(200)
ORRERY_WGMMA(208)
ORRERY_WGMMA(216)
ORRERY_WGMMA(224)
ORRERY_WGMMA(232)
ORRERY_WGMMA(240)
ORRERY_WGMMA(248)
ORRERY_WGMMA(256)

#undef ORRERY_WGMMA

}  // namespace orrery::selftest
