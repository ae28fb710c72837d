//! No unwinder in the shipped binary. It aborts on a panic and carries no unwind tables and no symbols, so a backtrace could
//! never show anything; but the standard library's panic handler still refers to the code that would print one, 200 KB of
//! it. These stand in its place: they say that there are no frames, and the linker leaves the rest out. The panic's own
//! message and place are printed as ever.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI's exception handling (libunwind's unwind.h): there are no more frames.
const END_OF_STACK: c_int = 5;

/// Walks no frames.
// SAFETY: the name and the signature are those of the ABI, and nothing else in the binary defines it: libunwind's object
// is only taken from its archive when the name is still missing.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *mut c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}
