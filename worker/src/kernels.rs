//! Which matrix kernels libtorch's math library takes.
//!
//! Intel's MKL, which is inside libtorch, asks one function whether the processor is Intel's, and where it is not takes kernels
//! of its own for others: none with AVX-512, and with AVX2 slightly slower ones (measured: 6 % on an AMD processor). A program
//! that exports a function of that name is asked in its place. Here it answers yes where the processor has what the faster
//! kernels need; SQUAD_MKL_NATIVE=1 restores MKL's own choice.
#![allow(unsafe_code, unreachable_pub, reason = "exports a symbol that MKL calls")]

use std::arch::x86_64::__cpuid;
use std::ffi::c_int;

/// Called by MKL, once or a few times, before it chooses kernels.
///
/// Sums are rounded in another order than by MKL's own choice: figures differ in the last bits.
// SAFETY: the name is MKL's own, and so is the signature `int (void)`; nothing else in the program has it.
#[unsafe(no_mangle)]
pub extern "C" fn mkl_serv_intel_cpu_true() -> c_int {
    let is_intel = {
        // "GenuineIntel" in the order in which the instruction gives it.
        let id = __cpuid(0);
        (id.ebx, id.edx, id.ecx) == (0x756e_6547, 0x4965_6e69, 0x6c65_746e)
    };
    c_int::from(is_intel || asked_for().is_some())
}

/// The instructions of the kernels that MKL is told to take on whatever processor this is.
pub(crate) fn asked_for() -> Option<&'static str> {
    if is_native() {
        None
    } else if has_avx512() {
        Some("AVX-512")
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Some("AVX2")
    } else {
        None
    }
}

/// Whether the user leaves the choice to MKL.
pub(crate) fn is_native() -> bool {
    std::env::var_os("SQUAD_MKL_NATIVE").is_some()
}

/// Whether the processor has the instructions of MKL's AVX-512 kernels.
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}
